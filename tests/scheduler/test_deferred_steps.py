"""Steps under a real scheduler and triggerer."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.scheduler.waiting import deferred, job
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
    assert airflow.client.wait("bad_ends", run, timeout=480) == "failed"
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
