"""Steps that wait for their jobs, as tests look at them: in Airflow, in the store and on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_stepops.jobs.attempt import segment
from tools.airflow_home import LocalAirflow

TAKEN_OVER = "[stepops] job is running"


def job(airflow: LocalAirflow, dag: str, run: str, task: str, index: int = -1) -> dict[str, Any]:
    """Return what the step said of its job."""
    value = airflow.client.xcom(dag, run, task, "stepops", index)
    return json.loads(value) if isinstance(value, str) else value


def deferred(
    airflow: LocalAirflow, dag: str, run: str, task: str = "wait_for", index: int = -1, try_number: int = 1
) -> dict[str, Any]:
    """Wait until a step is deferred and the triggerer has taken it over; return what it said of its job."""
    airflow.client.wait_for_task(dag, run, task, ("deferred",), map_index=index)
    taken_over(airflow, dag, run, task, index, try_number)
    return job(airflow, dag, run, task, index)


def taken_over(
    airflow: LocalAirflow,
    dag: str,
    run: str,
    task: str = "wait_for",
    index: int = -1,
    try_number: int = 1,
    times: int = 1,
) -> None:
    """Wait until so many triggerers have taken a deferred step over."""
    deadline = time.monotonic() + 120
    while (log := airflow.client.log(dag, run, task, index, try_number)).count(TAKEN_OVER) < times:
        instance = airflow.client.wait_for_task(dag, run, task, ("deferred", "failed"), map_index=index)
        assert instance["state"] == "deferred", "\n".join(log)
        assert time.monotonic() < deadline, "\n".join(log)
        time.sleep(0.5)


def ledger(airflow: LocalAirflow, run: str, dag: str = "one_waiting", task: str = "wait_for") -> Path:
    """Return the ledger of the first attempt of a task."""
    folder = airflow.home / "stepops" / "artifacts" / "runs" / dag / segment(run) / task / "-1"
    (found,) = folder.glob("*/attempt-1/job.json")
    return found


def job_folder(airflow: LocalAirflow, name: str) -> Path:
    """Return the folder of a local job."""
    return airflow.home / "stepops" / "jobs" / name


def job_state(airflow: LocalAirflow, name: str) -> dict[str, Any]:
    """Return what the job's supervisor says."""
    return json.loads((job_folder(airflow, name) / "state.json").read_text())


def jobs_of(airflow: LocalAirflow, run: str) -> list[str]:
    """Return the names of all jobs that a run has had."""
    jobs = (airflow.home / "stepops" / "jobs").glob("*/request.json")
    return sorted(path.parent.name for path in jobs if f"/{segment(run)}/" in path.read_text())


def wait_for_end(airflow: LocalAirflow, name: str, seconds: float = 60) -> float:
    """Wait for the end of a job and return its Unix time."""
    eventually(lambda: job_state(airflow, name).get("ended_at"), f"job {name} has not ended", seconds)
    return float(job_state(airflow, name)["ended_at"])


def eventually(condition: Callable[[], Any], otherwise: str, seconds: float = 60) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)
