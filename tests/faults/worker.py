"""What Airflow's processes do with one attempt of a step, each in a process that may be killed at any call.

Imported by a server that forks such processes, so that each begins at once.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.exceptions import TaskDeferred

from airflow_stepops.artifacts import bucket
from airflow_stepops.clouds.aws import connection as aws
from airflow_stepops.clouds.azure import connection as azure
from airflow_stepops.clouds.azure import credentials
from airflow_stepops.clouds.azure import service as azure_service
from airflow_stepops.clouds.gcp import connection as gcp
from airflow_stepops.clouds.gcp import service as gcp_service
from airflow_stepops.images.registry import session
from airflow_stepops.operators.versions import AirflowFailException
from airflow_stepops.triggers.job import JobTrigger
from tests.airflow_versions import dag_bag

DAG, TASK = "journey", "count"
#: Seconds by which lists of jobs are behind.
LAG = 1.5
#: Exit code of a task that Airflow does not run again.
FAILED_FOR_GOOD = 3


@dataclass
class TaskInstance:
    """As much of Airflow's task instance as a step asks for. What is pushed is kept in a file.

    :param folder: for what Airflow would keep in its database.
    """

    folder: Path
    run_id: str
    try_number: int
    dag_id: str = DAG
    task_id: str = TASK
    map_index: int = -1
    max_tries: int = 9
    dag_version_id: str = ""
    bundle_instance: Any = None
    pushed: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What Airflow calls this try."""
        return f"{self.run_id}-{self.try_number}"

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value."""
        (self.folder / f"xcom-{key}").write_text(json.dumps(value))

    def xcom_pull(self, key: str, **_: Any) -> Any:
        """Return a value."""
        file = self.folder / f"xcom-{key}"
        return json.loads(file.read_text()) if file.exists() else None


@dataclass
class DagRun:
    """As much of Airflow's run as a step asks for: it was started once."""

    start_date: datetime = datetime(2026, 1, 1, tzinfo=UTC)


def execute(folder: Path, environment: dict[str, str], run_id: str, try_number: int) -> None:
    """Begin an attempt, and leave what its trigger is made of."""
    os.environ.update(environment)
    _hasten(environment)
    for file in folder.glob("xcom-*"):
        file.unlink()
    with failing(folder, try_number):
        defer(_task(environment), folder, run_id, try_number)


def wait(folder: Path, environment: dict[str, str], try_number: int) -> None:
    """Wait as a triggerer does, and leave the event."""
    os.environ.update(environment)
    _hasten(environment)
    arguments = json.loads((folder / "trigger").read_text())
    with failing(folder, try_number):
        leave(folder / "event", first_event(JobTrigger(**arguments)))


def resume(folder: Path, environment: dict[str, str], run_id: str, try_number: int) -> None:
    """Go on after the event, and leave what the step returned."""
    os.environ.update(environment)
    _hasten(environment)
    event = json.loads((folder / "event").read_text())
    with failing(folder, try_number):
        leave(folder / "returned", _task(environment).resume(context_of(folder, run_id, try_number), event))


def defer(task: Any, folder: Path, run_id: str, try_number: int) -> Any:
    """Execute a task, and leave what its trigger is made of; return what one returns that does not defer."""
    try:
        return task.execute(context_of(folder, run_id, try_number))
    except TaskDeferred as deferred:
        _, arguments = deferred.trigger.serialize()
        leave(folder / "trigger", arguments)
        return None


def first_event(trigger: Any) -> Any:
    """Run a trigger and return what its first event says."""

    async def first() -> Any:
        return (await anext(trigger.run())).payload

    return asyncio.run(first())


@contextmanager
def failing(folder: Path, try_number: int) -> Iterator[None]:
    """End the process as failed if the block fails; the driver tells why when the journey does not end well."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - as above
        (folder / f"error-{try_number}").write_text(f"{type(error).__name__}: {error}")
        sys.exit(FAILED_FOR_GOOD if isinstance(error, AirflowFailException) else 1)


def _task(environment: dict[str, str]) -> Any:
    dags = Path(environment["AIRFLOW__CORE__DAGS_FOLDER"])
    bag = dag_bag(dags)
    assert not bag.import_errors, bag.import_errors
    return bag.dags[DAG].task_dict[TASK]


def _hasten(environment: dict[str, str]) -> None:
    """Wait little: between looks, since jobs take a second here; for late lists; for a service that hangs."""
    module, _, name = environment["JOURNEY_SERVICE"].partition(":")
    getattr(importlib.import_module(module), name).poll_seconds = 0.3
    gcp_service.LOOK_AGAIN_AFTER = (0.2, 0.4, 0.8, 1.6)
    if "JOURNEY_ANSWER_SECONDS" not in environment:
        return
    seconds = float(environment["JOURNEY_ANSWER_SECONDS"])
    for each in (bucket, session, aws, azure, azure_service, gcp):
        each.ANSWER_SECONDS = seconds  # type: ignore[attr-defined]
    credentials.PATIENCE["read_timeout"] = int(seconds)


def context_of(folder: Path, run_id: str, try_number: int) -> Any:
    """Return what Airflow gives to a task."""
    return {"ti": TaskInstance(folder, run_id, try_number), "dag_run": DagRun()}


def leave(file: Path, value: Any) -> None:
    """Write a file, whole or not at all."""
    file.with_suffix(".new").write_text(json.dumps(value))
    file.with_suffix(".new").replace(file)
