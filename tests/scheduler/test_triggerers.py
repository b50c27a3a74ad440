"""Triggerers that end, die, stall and compete: a job is never stopped by that, and always finishes its task."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scheduler.waiting import deferred, eventually, job_folder, jobs_of, taken_over
from tools.airflow_home import LocalAirflow

SECOND = "second triggerer"


def send(airflow: LocalAirflow, number: signal.Signals) -> None:
    """Send a signal to the triggerer, which has a process for its triggers."""
    os.killpg(airflow.pids["triggerer"], number)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def waiting(airflow: LocalAirflow, gate: Path) -> str:
    """A run whose step waits for its job."""
    run = airflow.client.trigger("one_waiting", {"gate": str(gate)})
    deferred(airflow, "one_waiting", run)
    return run


@pytest.fixture
def second(airflow: LocalAirflow, waiting: str) -> Iterator[None]:
    """A second triggerer, which has begun after the first has taken the waiting step over."""
    airflow.start("triggerer", SECOND)
    yield
    airflow.restart("triggerer")
    airflow.stop(SECOND)


def assert_one_job_finishes_the_task(airflow: LocalAirflow, run: str, gate: Path) -> None:
    (name,) = jobs_of(airflow, run)
    gate.touch()
    assert airflow.client.wait("one_waiting", run) == "success"
    assert airflow.client.xcom("one_waiting", run, "wait_for") == 7
    assert airflow.client.task_instance("one_waiting", run, "wait_for")["try_number"] == 1
    assert jobs_of(airflow, run) == [name]
    assert not (job_folder(airflow, name) / "cancel").exists(), "somebody asked for the end of the job"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_triggerer_has_ended_the_next_one_goes_on(
    airflow: LocalAirflow, waiting: str, gate: Path, number: signal.Signals
) -> None:
    send(airflow, number)
    airflow.restart("triggerer")
    taken_over(airflow, "one_waiting", waiting, times=2)
    assert_one_job_finishes_the_task(airflow, waiting, gate)


def test_a_triggerer_that_stalls_alone_goes_on(airflow: LocalAirflow, waiting: str, gate: Path) -> None:
    send(airflow, signal.SIGSTOP)
    eventually(lambda: airflow.client.health().get("triggerer") == "unhealthy", "the triggerer is healthy")
    send(airflow, signal.SIGCONT)
    assert_one_job_finishes_the_task(airflow, waiting, gate)


@pytest.mark.usefixtures("second")
def test_of_two_triggerers_one_goes_on_when_the_other_is_killed(
    airflow: LocalAirflow, waiting: str, gate: Path
) -> None:
    send(airflow, signal.SIGKILL)
    taken_over(airflow, "one_waiting", waiting, times=2)
    assert_one_job_finishes_the_task(airflow, waiting, gate)


@pytest.mark.usefixtures("second")
def test_a_triggerer_that_wakes_after_another_took_its_triggers_over_stops_nothing(
    airflow: LocalAirflow, waiting: str, gate: Path
) -> None:
    send(airflow, signal.SIGSTOP)
    taken_over(airflow, "one_waiting", waiting, times=2)
    send(airflow, signal.SIGCONT)
    # Airflow 3.3 takes the loss of a trigger for a person's action.
    eventually(
        lambda: "trigger completed" in airflow.client.log("one_waiting", waiting, "wait_for"),
        "the triggerer that woke has not noticed that it lost its trigger",
        120,
    )
    assert_one_job_finishes_the_task(airflow, waiting, gate)
