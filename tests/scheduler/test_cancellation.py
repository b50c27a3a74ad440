"""Whatever ends the wait for a job but the job itself: the job is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scheduler.waiting import (
    deferred,
    eventually,
    job_folder,
    job_state,
    jobs_of,
    ledger,
    taken_over,
    wait_for_end,
)
from tools.airflow_home import LocalAirflow

ONE = "one_waiting"


@pytest.fixture
def never(airflow: LocalAirflow, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The conf of runs whose steps wait for ever; those of them that go on are ended."""
    yield {"gate": str(tmp_path / "never")}
    for dag in (ONE, "slow_waiting", "launching"):
        airflow.client.end_unfinished_runs(dag)


def end(airflow: LocalAirflow, dag: str, run: str, how: str) -> None:
    if how == "clear":
        airflow.client.clear(dag, run, ["wait_for"])
    else:
        airflow.client.set_state(dag, run, "wait_for", how)


@pytest.mark.parametrize("dag", [ONE, "slow_waiting"])
def test_a_job_is_stopped_within_ten_seconds_although_triggerer_is_cold_and_cloud_slow(
    airflow: LocalAirflow, never: dict[str, str], dag: str
) -> None:
    runs = {how: airflow.client.trigger(dag, never) for how in ("failed", "success", "clear")}
    names = {how: deferred(airflow, dag, run)["job_name"] for how, run in runs.items()}
    airflow.restart("triggerer")
    for run in runs.values():
        taken_over(airflow, dag, run, times=2)
    asked = {}
    for how, run in runs.items():
        asked[how] = time.time()
        end(airflow, dag, run, how)
    took = {how: wait_for_end(airflow, name) - asked[how] for how, name in names.items()}
    assert max(took.values()) < 10, took
    deferred(airflow, dag, runs["clear"], try_number=2)


@pytest.mark.parametrize("how", ["failed", "success"])
def test_the_ledger_tells_why_a_job_was_stopped(airflow: LocalAirflow, never: dict[str, str], how: str) -> None:
    run = airflow.client.trigger(ONE, never)
    name = deferred(airflow, ONE, run)["job_name"]
    end(airflow, ONE, run, how)
    wait_for_end(airflow, name)
    eventually(lambda: entry(airflow, run)["ended_at"], "the triggerer did not write the end into the ledger")
    assert end_of(airflow, run) == ("stopped", "cancelled", "its task was ended or cleared")


def test_a_cleared_step_begins_anew_once_its_old_job_has_ended(airflow: LocalAirflow, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = airflow.client.trigger(ONE, {"gate": str(gate)})
    first = deferred(airflow, ONE, run)["job_name"]
    airflow.client.clear(ONE, run, ["wait_for"])
    eventually(lambda: airflow.client.task_instance(ONE, run, "wait_for")["try_number"] == 2, "it is not tried again")
    second = deferred(airflow, ONE, run, try_number=2)["job_name"]
    assert second != first
    assert job_state(airflow, first)["state"] == "stopped"
    gate.touch()
    assert airflow.client.wait(ONE, run) == "success"
    assert airflow.client.xcom(ONE, run, "wait_for") == 7


def test_a_cancelled_job_fails_its_task_which_is_not_tried_again(airflow: LocalAirflow, never: dict[str, str]) -> None:
    run = airflow.client.trigger(ONE, never)
    name = deferred(airflow, ONE, run)["job_name"]
    said = stepops(airflow, "cancel", ONE, run)
    assert (said.returncode, said.stdout) == (0, f"wait_for: job {name}: stopped\n"), said.stderr
    assert airflow.client.wait(ONE, run) == "failed"
    assert airflow.client.task_instance(ONE, run, "wait_for")["try_number"] == 1
    assert "ended with cancelled" in "\n".join(airflow.client.log(ONE, run, "wait_for"))
    assert end_of(airflow, run)[:2] == ("stopped", "cancelled")


def test_the_job_of_a_run_that_is_ended_and_deleted_is_stopped(airflow: LocalAirflow, never: dict[str, str]) -> None:
    run = airflow.client.trigger(ONE, never)
    name = deferred(airflow, ONE, run)["job_name"]
    airflow.client.end_unfinished_runs(ONE)
    airflow.client.delete_run(ONE, run)
    wait_for_end(airflow, name)


def test_the_job_of_a_run_that_takes_too_long_is_stopped(airflow: LocalAirflow, never: dict[str, str]) -> None:
    run = airflow.client.trigger("run_with_a_limit", never)
    name = deferred(airflow, "run_with_a_limit", run)["job_name"]
    assert airflow.client.wait("run_with_a_limit", run) == "failed"
    wait_for_end(airflow, name)


def test_execution_timeout_counts_the_time_of_the_job(airflow: LocalAirflow, never: dict[str, str]) -> None:
    dag = "step_with_a_limit"
    run = airflow.client.trigger(dag, never)
    name = deferred(airflow, dag, run)["job_name"]
    assert airflow.client.wait(dag, run) == "failed"
    assert job_state(airflow, name)["state"] == "stopped"
    log = "\n".join(airflow.client.log(dag, run, "wait_for"))
    assert "ended with timeout: was there longer than 30 s" in log
    assert end_of(airflow, run, dag)[:2] == ("stopped", "timeout")


def test_a_job_whose_trigger_fails_is_stopped_and_the_task_says_why(
    airflow: LocalAirflow, never: dict[str, str]
) -> None:
    dag = "trigger_that_fails"
    run = airflow.client.trigger(dag, never)
    assert airflow.client.wait(dag, run) == "failed"
    (name,) = jobs_of(airflow, run)
    assert job_state(airflow, name)["state"] == "stopped"
    log = "\n".join(airflow.client.log(dag, run, "wait_for"))
    assert "ended with infrastructure: the trigger that waited for the job failed in the triggerer" in log
    assert "No module named 'halved.client'" in log
    assert end_of(airflow, run, dag)[:2] == ("stopped", "infrastructure")


def test_a_task_that_is_ended_while_it_launches_its_job_stops_it(airflow: LocalAirflow, never: dict[str, str]) -> None:
    run = airflow.client.trigger("launching", never)
    name, _ = launched(airflow, run)
    end(airflow, "launching", run, "failed")
    wait_for_end(airflow, name)
    assert airflow.client.wait("launching", run) == "failed"
    assert jobs_of(airflow, run) == [name]


def test_a_launch_that_takes_longer_than_execution_timeout_leaves_no_job(
    airflow: LocalAirflow, never: dict[str, str]
) -> None:
    run = airflow.client.trigger("launching_with_a_limit", never)
    name, _ = launched(airflow, run)
    assert airflow.client.wait("launching_with_a_limit", run) == "failed"
    wait_for_end(airflow, name)
    assert jobs_of(airflow, run) == [name]


def test_when_a_worker_is_killed_while_it_launches_the_next_try_goes_on_with_the_job(
    airflow: LocalAirflow, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    run = airflow.client.trigger("launching", {"gate": str(gate)})
    name, launcher = launched(airflow, run)
    os.kill(launcher, signal.SIGKILL)
    assert deferred(airflow, "launching", run, try_number=2)["job_name"] == name
    gate.touch()
    assert airflow.client.wait("launching", run) == "success"
    assert jobs_of(airflow, run) == [name]


@pytest.mark.parametrize("how", ["the command", "the DAG"])
def test_a_job_whose_task_was_ended_while_no_triggerer_was_alive_is_found_and_stopped(
    airflow: LocalAirflow, tmp_path: Path, never: dict[str, str], how: str
) -> None:
    run = airflow.client.trigger(ONE, never)
    wanted = airflow.client.trigger(ONE, {"gate": str(tmp_path / "gate")})
    orphan = deferred(airflow, ONE, run)["job_name"]
    other = deferred(airflow, ONE, wanted)["job_name"]
    airflow.stop("triggerer")
    end(airflow, ONE, run, "failed")
    assert airflow.client.wait(ONE, run) == "failed"
    assert orphans(airflow) == [f"local: {orphan}"]
    assert not job_state(airflow, orphan).get("ended_at")
    if how == "the DAG":
        swept = airflow.client.trigger("stepops_maintenance")
        assert airflow.client.wait("stepops_maintenance", swept) == "success"
        assert airflow.client.xcom("stepops_maintenance", swept, "stop_orphans") == [f"{orphan} stopped"]
    else:
        assert stepops(airflow, "prune", "--orphans", "--yes").returncode == 0
    wait_for_end(airflow, orphan, seconds=5)
    assert end_of(airflow, run) == ("stopped", "cancelled", "nobody waited for it: its task had ended")
    assert not job_state(airflow, other).get("ended_at")
    airflow.start("triggerer")
    (tmp_path / "gate").touch()
    assert airflow.client.wait(ONE, wanted) == "success"


def test_the_job_of_a_run_that_was_deleted_while_no_triggerer_was_alive_is_found_and_stopped(
    airflow: LocalAirflow, never: dict[str, str]
) -> None:
    run = airflow.client.trigger(ONE, never)
    orphan = deferred(airflow, ONE, run)["job_name"]
    airflow.stop("triggerer")
    airflow.client.end_unfinished_runs(ONE)
    airflow.client.delete_run(ONE, run)
    # Another Airflow may share the store: what is its own is not this one's to stop.
    foreign = entry(airflow, run)
    ledger(airflow, run).write_text(json.dumps({**foreign, "dag_version": "0190d4a3-0000-7000-8000-000000000000"}))
    assert orphans(airflow) == []
    ledger(airflow, run).write_text(json.dumps(foreign))
    assert orphans(airflow) == [f"local: {orphan}"]
    assert stepops(airflow, "prune", "--orphans", "--yes").returncode == 0
    wait_for_end(airflow, orphan, seconds=5)
    airflow.start("triggerer")


def launched(airflow: LocalAirflow, run: str) -> tuple[str, int]:
    """Wait until a worker has launched a job, and does not know yet; return the job's name and the worker's process."""
    eventually(lambda: jobs_of(airflow, run), "no job was launched", 120)
    (name,) = jobs_of(airflow, run)
    launcher = job_folder(airflow, name) / "launcher"
    eventually(lambda: launcher.exists() and launcher.read_text(), "no job was launched")
    return name, int(launcher.read_text())


def entry(airflow: LocalAirflow, run: str, dag: str = ONE) -> dict[str, Any]:
    return dict(json.loads(ledger(airflow, run, dag).read_text()))


def end_of(airflow: LocalAirflow, run: str, dag: str = ONE) -> tuple[str, str, str]:
    """Return how a job has ended, as the ledger of the first attempt has it."""
    found = entry(airflow, run, dag)
    return found["state"], found["end_kind"], found["end_reason"]


def orphans(airflow: LocalAirflow) -> list[str]:
    """Return the jobs that ``stepops prune --orphans`` would stop."""
    said = stepops(airflow, "prune", "--orphans", "--json")
    assert said.returncode == 0, said.stderr
    return [row["place"] for row in json.loads(said.stdout)["found"] if row["what"] == "orphaned job"]


def stepops(airflow: LocalAirflow, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("stepops"), *arguments]
    return subprocess.run(command, env=airflow.environment, capture_output=True, text=True, check=False)
