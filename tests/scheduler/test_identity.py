"""An attempt shares nothing with another life of its run, or with another Airflow on the same store."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scheduler.test_cancellation import orphans
from tests.scheduler.waiting import deferred, eventually, job, job_folder, job_state, jobs_of, wait_for_end
from tools.airflow_home import LocalAirflow, running_airflow

ONE = "one_waiting"

LIVES = """\
from airflow_stepops.dag import pipeline, step


@step(step_operator=True)
def number(bad: bool) -> int:
    if bad:
        raise ValueError("yesterday's bug")
    return {number}


@pipeline
def lives(bad=False):
    number(bad)
"""


@pytest.fixture(scope="module")
def other(airflow: LocalAirflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Another Airflow with a database of its own and the same DAGs, on the store and the jobs of the first one."""
    home = tmp_path_factory.mktemp("other")
    dags = home / "dags"
    shutil.copytree(Path(__file__).parent / "dags", dags)
    (dags / "lives.py").write_text(LIVES.format(number=1))
    settings = {name: airflow.environment[name] for name in ("PYTHONPATH",)}
    settings["STEPOPS_HOME"] = str(airflow.home / "stepops")
    with running_airflow(home / "airflow", dags, settings=settings) as running:
        running.wait_for_dag("lives")
        running.wait_for_dag(ONE)
        yield running


def executor_events(airflow: LocalAirflow, run: str) -> int:
    """Return how often the scheduler has heard from its executor that a task of a run was deferred or has ended.

    Airflow knows tasks by run and try there: what it hears late fails the task of the run that was made again.
    """
    lines = (airflow.home / "scheduler.log").read_text().splitlines()
    return sum("Received executor event" in line and f"run_id='{run}'" in line for line in lines)


def test_a_run_that_is_deleted_and_made_again_under_its_id_begins_again(
    other: LocalAirflow, airflow: LocalAirflow
) -> None:
    ends = {"success": False, "failed": True}
    for state, bad in ends.items():
        other.client.trigger("lives", {"bad": bad}, run_id=f"ended-{state}")
    for state in ends:
        assert other.client.wait("lives", f"ended-{state}") == state
    assert other.client.xcom("lives", "ended-success", "number") == 1
    for state in ends:
        eventually(lambda run=f"ended-{state}": executor_events(other, run) >= 2, "the scheduler hears no more of it")
    Path(other.environment["AIRFLOW__CORE__DAGS_FOLDER"], "lives.py").write_text(LIVES.format(number=2))
    for state in ends:
        other.client.delete_run("lives", f"ended-{state}")
        other.client.trigger("lives", {"bad": False}, run_id=f"ended-{state}")
    for state in ends:
        assert other.client.wait("lives", f"ended-{state}") == "success"
        assert other.client.xcom("lives", f"ended-{state}", "number") == 2
        assert len(jobs_of(airflow, f"ended-{state}")) == 2


def test_a_run_that_was_cancelled_deleted_and_made_again_waits_for_a_job_of_its_own(
    other: LocalAirflow, airflow: LocalAirflow, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    run = other.client.trigger(ONE, {"gate": str(gate)}, run_id="cancelled")
    first = deferred(other, ONE, run)["job_name"]
    other.client.set_state(ONE, run, "wait_for", "failed")
    wait_for_end(airflow, first)
    assert other.client.wait(ONE, run) == "failed"
    other.client.delete_run(ONE, run)
    other.client.trigger(ONE, {"gate": str(gate)}, run_id="cancelled")
    assert deferred(other, ONE, run)["job_name"] != first
    gate.touch()
    assert other.client.wait(ONE, run) == "success"


def test_two_airflows_run_the_same_run_of_the_same_dag_at_once_on_one_store(
    airflow: LocalAirflow, other: LocalAirflow, tmp_path: Path
) -> None:
    both = {"one": airflow, "other": other}
    run = "in-both"
    for name, running in both.items():
        running.client.trigger(ONE, {"gate": str(tmp_path / name)}, run_id=run)
    names = {name: deferred(running, ONE, run)["job_name"] for name, running in both.items()}
    assert len(set(names.values())) == 2
    airflow.client.set_state(ONE, run, "wait_for", "failed")
    wait_for_end(airflow, names["one"])
    assert airflow.client.wait(ONE, run) == "failed"
    assert orphans(airflow) == []
    # Cleared, it has a second try beside the job of the other Airflow.
    airflow.client.clear(ONE, run, ["wait_for"])
    again = deferred(airflow, ONE, run, try_number=2)["job_name"]
    assert again not in names.values()
    assert not job_state(airflow, names["other"]).get("ended_at")
    (tmp_path / "other").touch()
    assert other.client.wait(ONE, run) == "success"
    assert not job_state(airflow, again).get("ended_at")
    (tmp_path / "one").touch()
    assert airflow.client.wait(ONE, run) == "success"
    assert jobs_of(airflow, run) == sorted([*names.values(), again])


def test_a_deployment_of_other_code_leaves_the_job_to_the_retry(
    other: LocalAirflow, airflow: LocalAirflow, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    run = other.client.trigger("launching", {"gate": str(gate)}, run_id="deployed")
    eventually(lambda: jobs_of(airflow, run), "no job was launched", 120)
    (name,) = jobs_of(airflow, run)
    launcher = job_folder(airflow, name) / "launcher"
    eventually(lambda: launcher.exists() and launcher.read_text(), "no job was launched")
    Path(other.environment["AIRFLOW__CORE__DAGS_FOLDER"], "of_another_team.py").write_text("VALUE = 1\n")
    os.kill(int(launcher.read_text()), signal.SIGKILL)
    assert deferred(other, "launching", run, try_number=2)["job_name"] == name
    gate.touch()
    assert other.client.wait("launching", run) == "success"
    assert jobs_of(airflow, run) == [name]
    assert job(other, "launching", run, "wait_for")["job_name"] == name
