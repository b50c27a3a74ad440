"""Steps under a real scheduler and triggerer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scheduler.waiting import deferred, job, job_state, ledger, wait_for_end
from tools.airflow_home import LocalAirflow


def test_while_three_steps_wait_no_worker_slot_is_in_use(airflow: LocalAirflow, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = airflow.client.trigger("three_waiting", {"gate": str(gate)})
    for index in range(3):
        deferred(airflow, "three_waiting", run, "wait_for", index)
    slots = airflow.client.slots()
    assert (slots["occupied_slots"], slots["running_slots"], slots["queued_slots"]) == (0, 0, 0)
    assert slots["deferred_slots"] == 3
    gate.touch()
    assert airflow.client.wait("three_waiting", run) == "success"
    results = [airflow.client.xcom("three_waiting", run, "wait_for", map_index=index) for index in range(3)]
    assert results == [1, 2, 3]


def test_the_log_of_a_waiting_step_shows_what_its_job_prints(airflow: LocalAirflow, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = airflow.client.trigger("one_waiting", {"gate": str(gate)})
    deferred(airflow, "one_waiting", run, "wait_for")
    line = f"waiting at {gate}"
    deadline = time.monotonic() + 60
    while line not in (log := airflow.client.log("one_waiting", run, "wait_for")):
        assert time.monotonic() < deadline, "\n".join(log)
        time.sleep(0.5)
    assert airflow.client.task_instance("one_waiting", run, "wait_for")["state"] == "deferred"
    gate.touch()
    assert airflow.client.wait("one_waiting", run) == "success"


@pytest.fixture(scope="session")
def bad_ends(airflow: LocalAirflow) -> str:
    run = airflow.client.trigger("bad_ends")
    assert airflow.client.wait("bad_ends", run, timeout=240) == "failed"
    return run


def test_a_step_that_raises_shows_its_own_traceback(airflow: LocalAirflow, bad_ends: str) -> None:
    log = "\n".join(airflow.client.log("bad_ends", bad_ends, "raise_error"))
    assert "ended with user_code: ValueError: the rate is negative" in log
    assert 'raise ValueError("the rate is negative")' in log
    assert "in raise_error" in log


def test_a_step_that_is_killed_says_so(airflow: LocalAirflow, bad_ends: str) -> None:
    log = "\n".join(airflow.client.log("bad_ends", bad_ends, "kill_itself"))
    assert "killed by signal 9" in log
    assert airflow.client.task_instance("bad_ends", bad_ends, "kill_itself")["state"] == "failed"


def test_a_hundred_thousand_lines_all_arrive_in_order(airflow: LocalAirflow, bad_ends: str) -> None:
    assert airflow.client.task_instance("bad_ends", bad_ends, "print_lines")["state"] == "success"
    name = job(airflow, "bad_ends", bad_ends, "print_lines")["job_name"]
    written = (airflow.home / "stepops" / "jobs" / name / "log").read_text().splitlines()
    expected = [f"line {number}" for number in range(100_000)]
    assert [line for line in written if line.startswith("line ")] == expected
    task_log = airflow.home / "logs" / "dag_id=bad_ends" / f"run_id={bad_ends}" / "task_id=print_lines"
    shown = [
        json.loads(line)["event"]
        for file in sorted(task_log.glob("*.trigger.*"))
        for line in file.read_text().splitlines()
    ]
    assert [line for line in shown if line.startswith("line ")] == expected


def test_values_travel_between_the_worker_jobs_and_ordinary_tasks(airflow: LocalAirflow) -> None:
    run = airflow.client.trigger("values")
    assert airflow.client.wait("values", run, timeout=240) == "success"
    assert airflow.client.xcom("values", run, "total") == 6
    assert airflow.client.xcom("values", run, "ordinary") == 2
    assert job(airflow, "values", run, "split")["metadata"] == {"rows": 3}
    assert job(airflow, "values", run, "split")["where"] == "local"
    assert job(airflow, "values", run, "total")["where"] == "worker"


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_a_waiting_step_stops_its_job(airflow: LocalAirflow, tmp_path: Path, state: str) -> None:
    run = airflow.client.trigger("one_waiting", {"gate": str(tmp_path / "never")})
    name = deferred(airflow, "one_waiting", run, "wait_for")["job_name"]
    airflow.client.set_state("one_waiting", run, "wait_for", state)
    wait_for_end(airflow, name)
    entry = {}
    deadline = time.monotonic() + 60
    while not entry.get("ended_at"):
        assert time.monotonic() < deadline, "the triggerer did not write the end into the ledger"
        time.sleep(0.25)
        entry = json.loads(ledger(airflow, run).read_text())
    assert (entry["state"], entry["end_kind"], entry["end_reason"]) == (
        "stopped",
        "cancelled",
        "its task was ended or cleared",
    )


def test_a_cancelled_job_fails_its_task_which_is_not_tried_again(airflow: LocalAirflow, tmp_path: Path) -> None:
    run = airflow.client.trigger("one_waiting", {"gate": str(tmp_path / "never")})
    name = deferred(airflow, "one_waiting", run, "wait_for")["job_name"]
    command = [Path(sys.executable).with_name("stepops"), "cancel", "one_waiting", run]
    said = subprocess.run(command, env=airflow.environment, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, f"wait_for: job {name}: stopped\n"), said.stderr
    assert airflow.client.wait("one_waiting", run) == "failed"
    assert airflow.client.task_instance("one_waiting", run, "wait_for")["try_number"] == 1
    assert "ended with cancelled" in "\n".join(airflow.client.log("one_waiting", run, "wait_for"))
    entry = json.loads(ledger(airflow, run).read_text())
    assert (entry["state"], entry["end_kind"]) == ("stopped", "cancelled")


def test_a_cleared_step_begins_anew(airflow: LocalAirflow, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = airflow.client.trigger("one_waiting", {"gate": str(gate)})
    first = deferred(airflow, "one_waiting", run, "wait_for")
    airflow.client.clear("one_waiting", run, ["wait_for"])
    deadline = time.monotonic() + 60
    while airflow.client.task_instance("one_waiting", run, "wait_for")["try_number"] == 1:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    second = deferred(airflow, "one_waiting", run, "wait_for", try_number=2)
    assert second["job_name"] != first["job_name"]
    assert job_state(airflow, first["job_name"])["state"] == "stopped"
    gate.touch()
    assert airflow.client.wait("one_waiting", run) == "success"
    assert airflow.client.xcom("one_waiting", run, "wait_for") == 7


def test_a_restarted_triggerer_goes_on_with_the_job(airflow: LocalAirflow, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = airflow.client.trigger("one_waiting", {"gate": str(gate)})
    name = deferred(airflow, "one_waiting", run, "wait_for")["job_name"]
    airflow.restart("triggerer")
    gate.touch()
    assert airflow.client.wait("one_waiting", run) == "success"
    assert job(airflow, "one_waiting", run, "wait_for")["job_name"] == name
    assert airflow.client.task_instance("one_waiting", run, "wait_for")["try_number"] == 1


@pytest.mark.parametrize("how", ["the command", "the DAG"])
def test_a_job_whose_task_was_ended_while_no_triggerer_was_alive_is_found_and_stopped(
    airflow: LocalAirflow, tmp_path: Path, how: str
) -> None:
    run = airflow.client.trigger("one_waiting", {"gate": str(tmp_path / "never")})
    wanted = airflow.client.trigger("one_waiting", {"gate": str(tmp_path / "gate")})
    orphan = deferred(airflow, "one_waiting", run, "wait_for")["job_name"]
    other = deferred(airflow, "one_waiting", wanted, "wait_for")["job_name"]
    airflow.stop("triggerer")
    airflow.client.set_state("one_waiting", run, "wait_for", "failed")
    assert airflow.client.wait("one_waiting", run) == "failed"
    command = [Path(sys.executable).with_name("stepops"), "prune", "--orphans", "--json"]
    said = subprocess.run(command, env=airflow.environment, capture_output=True, text=True, check=False)
    found = [row["place"] for row in json.loads(said.stdout)["found"] if row["what"] == "orphaned job"]
    assert found == [f"local: {orphan}"]
    assert not job_state(airflow, orphan).get("ended_at")
    if how == "the DAG":
        swept = airflow.client.trigger("stepops_maintenance")
        assert airflow.client.wait("stepops_maintenance", swept) == "success"
        assert airflow.client.xcom("stepops_maintenance", swept, "stop_orphans") == [f"{orphan} stopped"]
    else:
        subprocess.run([*command, "--yes"], env=airflow.environment, check=True, capture_output=True)
    wait_for_end(airflow, orphan, seconds=5)
    entry = json.loads(ledger(airflow, run).read_text())
    assert (entry["state"], entry["end_reason"]) == ("stopped", "nobody waited for it: its task had ended")
    assert not job_state(airflow, other).get("ended_at")
    airflow.start("triggerer")
    (tmp_path / "gate").touch()
    assert airflow.client.wait("one_waiting", wanted) == "success"
