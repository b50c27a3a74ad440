"""What Airflow's processes do with one attempt of a step, each in a process that may be killed at any call.

Imported by a server that forks such processes, so that each begins at once.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk.exceptions import TaskDeferred

from airflow_stepops.triggers.job import JobTrigger

DAG, TASK = "journey", "count"


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
    bundle_instance: Any = None
    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value."""
        (self.folder / f"xcom-{key}").write_text(json.dumps(value))

    def xcom_pull(self, key: str, **_: Any) -> Any:
        """Return a value."""
        file = self.folder / f"xcom-{key}"
        return json.loads(file.read_text()) if file.exists() else None


def execute(folder: Path, environment: dict[str, str], run_id: str, try_number: int) -> None:
    """Begin an attempt, and leave what its trigger is made of."""
    os.environ.update(environment)
    for file in folder.glob("xcom-*"):
        file.unlink()
    try:
        _task(environment).execute(_context(folder, run_id, try_number))
    except TaskDeferred as deferred:
        _, arguments = deferred.trigger.serialize()
        _leave(folder / "trigger", arguments)
    except BaseException as error:  # noqa: BLE001 - the driver tells it when the journey does not end well
        (folder / f"error-{try_number}").write_text(f"{type(error).__name__}: {error}")
        sys.exit(1)


def wait(folder: Path, environment: dict[str, str]) -> None:
    """Wait as a triggerer does, and leave the event."""
    os.environ.update(environment)
    _hasten(environment)
    arguments = json.loads((folder / "trigger").read_text())

    async def first() -> Any:
        return (await anext(JobTrigger(**arguments).run())).payload

    _leave(folder / "event", asyncio.run(first()))


def resume(folder: Path, environment: dict[str, str], run_id: str, try_number: int) -> None:
    """Go on after the event, and leave what the step returned."""
    os.environ.update(environment)
    event = json.loads((folder / "event").read_text())
    try:
        returned = _task(environment).resume(_context(folder, run_id, try_number), event)
    except BaseException as error:  # noqa: BLE001 - as above
        (folder / f"error-{try_number}").write_text(f"{type(error).__name__}: {error}")
        sys.exit(1)
    _leave(folder / "returned", returned)


def _task(environment: dict[str, str]) -> Any:
    dags = Path(environment["AIRFLOW__CORE__DAGS_FOLDER"])
    bag = BundleDagBag(dag_folder=dags, bundle_path=dags, bundle_name="dags-folder")
    assert not bag.import_errors, bag.import_errors
    return bag.dags[DAG].task_dict[TASK]


def _hasten(environment: dict[str, str]) -> None:
    """Let the watcher look often: jobs take a second here."""
    module, _, name = environment["JOURNEY_SERVICE"].partition(":")
    getattr(importlib.import_module(module), name).poll_seconds = 0.3


def _context(folder: Path, run_id: str, try_number: int) -> Any:
    return {"ti": TaskInstance(folder, run_id, try_number)}


def _leave(file: Path, value: Any) -> None:
    """Write a file, whole or not at all."""
    file.with_suffix(".new").write_text(json.dumps(value))
    file.with_suffix(".new").replace(file)
