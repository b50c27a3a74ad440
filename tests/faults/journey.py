"""One attempt of a step from its start to the resumed task, with one thing that goes wrong on the way.

A journey without faults records the calls over the network. Then each of them is a place where something can go wrong,
once: Airflow's process is killed before the call, or when the call was sent; the service answers with an error, half or
not at all. Airflow then does what it does: it runs a killed or failed task again as the next attempt, and a killed
trigger again as it was. In the end the result must be there, of one job, and no job may run.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.faults import worker
from tests.images.faults import Fault, FaultyProxy

#: What happens to one call. The first two end Airflow's process with SIGKILL.
KILLED_BEFORE, KILLED_AFTER = "killed before the call", "killed after the call was sent"
FAULTS = (KILLED_BEFORE, KILLED_AFTER, "reset", "lose_answer", "cut_answer", "503", "429", "expired")
_TRIES = 6
RETURNED = 42

STEP = """\
from airflow_stepops.dag import Image, pipeline, step


@step(step_operator=True, image=Image(python="3.11"))
def count():
    return 42


@pipeline(stack="faulty")
def journey():
    count()
"""


@dataclass
class Line:
    """What lies between Airflow and a cloud: it knows each call, and lets one go wrong.

    :param plan: number of the call and what happens to it.
    """

    plan: tuple[int, str] | None = None
    calls: list[str] = field(default_factory=list)
    fired: bool = False
    victim: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, plan: tuple[int, str] | None) -> None:
        """Begin another journey."""
        self.plan, self.calls, self.fired = plan, [], False

    def decide(self, call: str) -> str | None:
        """Note a call and return what happens to it."""
        with self._lock:
            number = len(self.calls)
            self.calls.append(call)
            if self.plan is None or self.plan[0] != number:
                return None
            self.fired = True
        return self.plan[1]

    def kill(self) -> None:
        """End Airflow's process."""
        os.kill(self.victim, signal.SIGKILL)


class LineProxy(FaultyProxy):
    """A proxy that asks the line about each call of Airflow; those of jobs it lets through.

    :param is_airflow: whether headers are those of a call by Airflow.
    :param expired: what the service answers to credentials that have expired: status and body.
    """

    def __init__(
        self,
        registry: str,
        host: str,
        gate: Any,
        *,
        line: Line,
        is_airflow: Callable[[Mapping[str, str]], bool],
        expired: Callable[[Mapping[str, str]], tuple[int, bytes]],
    ) -> None:
        super().__init__(registry, host, gate)
        self._line = line
        self._is_airflow = is_airflow
        self._expired = expired

    def take(self, method: str, path: str, headers: Mapping[str, str]) -> Fault | None:
        """Return the fault for a request."""
        if not self._is_airflow(headers):
            return None
        kind = self._line.decide(f"{method} {_general(path)}")
        if kind is None:
            return None
        if kind == KILLED_BEFORE:
            self._line.kill()
            return Fault("reset", method)
        if kind == KILLED_AFTER:
            return Fault("lose_answer", method, on_sent=self._line.kill)
        if kind == "expired":
            status, body = self._expired(headers)
            return Fault("status", method, status=status, body=body)
        return Fault("status", method, status=int(kind)) if kind.isdigit() else Fault(kind, method)


@dataclass(frozen=True)
class Place:
    """A cloud to travel to.

    :param environment: of Airflow's processes.
    :param line: between them and the cloud.
    :param jobs: states of the jobs of a run, by name: ``running``, ``succeeded``, ``failed``, ``stopped``.
    """

    name: str
    environment: dict[str, str]
    line: Line
    jobs: Callable[[str], Mapping[str, str]]


@dataclass(frozen=True)
class Journey:
    """What came of one.

    :param calls: what Airflow called, in order.
    :param attempts: how many tries Airflow made.
    """

    fault: tuple[int, str] | None
    fired: bool
    calls: Sequence[str]
    attempts: int
    lost: bool
    duplicated: bool
    orphaned: bool
    said: str

    @property
    def is_well(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.duplicated or self.orphaned)


def lay_out(
    folder: Path, connection: str, store: dict[str, Any], registry: dict[str, Any], operator: dict[str, Any]
) -> None:
    """Write the DAG and the stack file of journeys.

    :param connection: id of the Airflow connection of all parts.
    :param store: the artifact store, as in a stack file; likewise the others.
    """
    for part in (store, registry, operator):
        part["connection"] = connection
    (folder / "dags").mkdir()
    (folder / "dags" / "journey.py").write_text(STEP)
    stack = {
        "version": 1,
        "artifact_stores": {"values": store},
        "container_registries": {"images": registry},
        "step_operators": {"jobs": operator},
        "stacks": {"faulty": {"artifact_store": "values", "container_registry": "images", "step_operators": ["jobs"]}},
    }
    (folder / "stepops.yaml").write_text(yaml.safe_dump(stack))


def environment(folder: Path, name: str, connection: dict[str, Any], service: str) -> dict[str, str]:
    """Return the variables of Airflow's processes.

    :param name: id of the Airflow connection.
    :param service: module and name of the class whose jobs are waited for.
    """
    return {
        "JOURNEY_SERVICE": service,
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection),
        "STEPOPS_CONFIG": str(folder / "stepops.yaml"),
        "STEPOPS_HOME": str(folder / "home"),
    }


def travel(place: Place, fault: tuple[int, str] | None = None) -> Journey:
    """Make one journey.

    :param fault: number of the call, from 0, and one of :data:`FAULTS`.
    """
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    folder = Path(tempfile.mkdtemp(prefix="stepops-journey-"))
    place.line.begin(fault)
    try:
        attempts = _attempts(place, folder, run_id)
        returned = json.loads((folder / "returned").read_text()) if (folder / "returned").exists() else None
        errors = "; ".join(file.read_text() for file in sorted(folder.glob("error-*")))
    finally:
        shutil.rmtree(folder)
    states = list(place.jobs(run_id).values())
    return Journey(
        fault,
        place.line.fired,
        tuple(place.line.calls),
        attempts,
        lost=returned != RETURNED,
        duplicated=sum(state in ("running", "succeeded") for state in states) > 1,
        orphaned="running" in states,
        said=f"jobs {states}; {errors}",
    )


def _attempts(place: Place, folder: Path, run_id: str) -> int:
    for number in range(1, _TRIES):
        for file in ("trigger", "event"):
            (folder / file).unlink(missing_ok=True)
        if _process(place, worker.execute, folder, place.environment, run_id, number):
            continue
        while not (folder / "event").exists():  # a triggerer that dies is followed by another
            _process(place, worker.wait, folder, place.environment)
        if not _process(place, worker.resume, folder, place.environment, run_id, number):
            return number
    return _TRIES


def _process(place: Place, function: Callable[..., None], *arguments: Any) -> int:
    """Run a function in a process of its own and return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.worker"])
    process = context.Process(target=function, args=arguments)
    process.start()
    place.line.victim = process.pid or 0
    process.join(300)
    assert process.exitcode is not None, f"{function.__name__} does not end"
    return process.exitcode


def _general(path: str) -> str:
    """Return a path without what differs from run to run."""
    return re.sub(r"[0-9a-f]{12,}|run-[^/]+", "*", path.partition("?")[0] + ("#" + path.partition("#")[2]).rstrip("#"))
