"""A step from its start to the resumed task, with things that go wrong on the way.

A journey without faults records the calls over the network. Each of them is a place where something can go wrong:
Airflow's process is killed before the call, when the call was sent, or when the answer came; the service answers with
an error, half, not at all, or never. Airflow then does what it does: it runs a killed or failed task again as the next
attempt, unless it failed for good, and a killed trigger again as it was; meanwhile the next thing can go wrong. In the
end the result must be there, of one job, and no job may run.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import yaml

from tests.faults import worker
from tests.images.faults import Fault, FaultyProxy

#: What happens to one call. The first three end Airflow's process with SIGKILL.
KILLED_BEFORE, KILLED_AFTER = "killed before the call", "killed after the call was sent"
KILLED_ANSWERED = "killed after the answer"
KILLS = (KILLED_BEFORE, KILLED_AFTER, KILLED_ANSWERED)
HANG = "hang"
EXPIRED = "expired"
FAULTS = (*KILLS, "reset", "lose_answer", "cut_answer", HANG, "503", "429", EXPIRED)
#: How long Airflow's processes wait for an answer in a journey with a service that hangs.
_IMPATIENCE = {"JOURNEY_ANSWER_SECONDS": "2"}
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

#: One call of a journey: what is called, and how often it was called before. Jobs are looked at more or less often.
Spot = tuple[str, int]

#: A fault and where it happens: at a call, or so many calls after the fault before it.
Planned = tuple[Spot | int, str]


@dataclass
class Line:
    """What lies between Airflow and a cloud: it knows each call, and lets some go wrong.

    :param plan: the faults, in order.
    :ivar fired: how many of them have happened.
    """

    plan: tuple[Planned, ...] = ()
    calls: list[str] = field(default_factory=list)
    fired: int = 0
    _since: int = 0
    _process: ForkServerProcess | None = None
    _doomed: ForkServerProcess | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, plan: tuple[Planned, ...]) -> None:
        """Begin another journey."""
        self.plan, self.calls, self.fired, self._since = plan, [], 0, 0

    def serve(self, process: ForkServerProcess) -> None:
        """Tell whose calls come from now on."""
        self._process, self._doomed = process, None

    def decide(self, call: str, *, can_expire: bool) -> str | None:
        """Note a call and return what happens to it.

        :param can_expire: whether there are credentials in the call; a fault that needs some waits for such a call.
        """
        with self._lock:
            doomed = self._doomed
            if doomed is None:
                spot = (call, self.calls.count(call))
                self.calls.append(call)
                self._since += 1
                fault = self._due(spot)
                if fault is None or (fault == EXPIRED and not can_expire):
                    return None
                self.fired += 1
                self._since = 0
                if fault in KILLS:
                    self._doomed = self._process
                return fault
        # A process that is about to be killed may be faster than who kills it: this call is never made.
        wait([doomed.sentinel], 60)
        return "reset"

    def _due(self, spot: Spot) -> str | None:
        """Return the next fault if it is to happen at this call."""
        if self.fired == len(self.plan):
            return None
        where, fault = self.plan[self.fired]
        is_here = self._since >= where if isinstance(where, int) else spot == where
        return fault if is_here else None

    def kill(self) -> None:
        """End Airflow's process."""
        assert self._process is not None
        assert self._process.pid is not None
        with suppress(ProcessLookupError):  # it may have been its last call
            os.kill(self._process.pid, signal.SIGKILL)


class LineProxy(FaultyProxy):
    """A proxy that asks the line about each call of Airflow; those of jobs it lets through.

    :param is_airflow: whether headers are those of a call by Airflow.
    :param expired: what the service answers to credentials that have expired: status and body; ``None`` where there are
        none in a call.
    """

    def __init__(
        self,
        registry: str,
        host: str,
        gate: Any,
        *,
        line: Line,
        is_airflow: Callable[[Mapping[str, str]], bool],
        expired: Callable[[Mapping[str, str]], tuple[int, bytes] | None],
    ) -> None:
        super().__init__(registry, host, gate)
        self._line = line
        self._is_airflow = is_airflow
        self._expired = expired

    def take(self, method: str, path: str, headers: Mapping[str, str]) -> Fault | None:
        """Return the fault for a request."""
        if not self._is_airflow(headers):
            return None
        expired = self._expired(headers)
        kind = self._line.decide(f"{method} {_general(path)}", can_expire=expired is not None)
        if kind is None:
            return None
        if kind == KILLED_BEFORE:
            self._line.kill()
            return Fault("reset", method)
        if kind == KILLED_AFTER:
            return Fault("lose_answer", method, on_sent=self._line.kill)
        if kind == KILLED_ANSWERED:
            return Fault("go_on", method, on_answered=self._line.kill)
        if kind == EXPIRED and expired is not None:
            return Fault("status", method, status=expired[0], body=expired[1])
        return Fault("status", method, status=int(kind)) if kind.isdigit() else Fault(kind, method)


@dataclass(frozen=True)
class Task:
    """What Airflow's processes do with an attempt of a task: see :mod:`tests.faults.worker`."""

    execute: Callable[..., None]
    wait: Callable[..., None]
    resume: Callable[..., None]


STEP_TASK = Task(worker.execute, worker.wait, worker.resume)


@dataclass(frozen=True)
class Place:
    """A cloud to travel to.

    :param environment: of Airflow's processes.
    :param line: between them and the cloud.
    :param jobs: states of the jobs of a run, by name: ``running``, ``succeeded``, ``failed``, ``stopped``.
    :param create: regular expression for the call that makes a job.
    :param task: what Airflow's processes do with an attempt.
    """

    name: str
    environment: dict[str, str]
    line: Line
    jobs: Callable[[str], Mapping[str, str]]
    create: str
    task: Task = STEP_TASK


@dataclass(frozen=True)
class Journey:
    """What came of one.

    :param fired: whether all faults happened.
    :param calls: what Airflow called, in order.
    :param attempts: how many tries Airflow made.
    """

    faults: tuple[Planned, ...]
    fired: bool
    calls: Sequence[str]
    attempts: int
    lost: bool
    duplicated: bool
    orphaned: bool
    said: str

    @property
    def spots(self) -> list[Spot]:
        """The calls, in order, each known from the others like it."""
        return [(call, self.calls[:number].count(call)) for number, call in enumerate(self.calls)]

    @property
    def is_well(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.duplicated or self.orphaned)


def is_no_engine(headers: Mapping[str, str]) -> bool:
    """Whether a call of a registry is Airflow's, and not of a Podman that pulls an image."""
    return not headers.get("User-Agent", "").startswith("containers/")


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


def travel(place: Place, *faults: Planned) -> Journey:
    """Make one journey.

    :param faults: in the order in which they happen; a later one may be in another process or attempt.
    """
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    folder = Path(tempfile.mkdtemp(prefix="stepops-journey-"))
    place.line.begin(faults)
    try:
        attempts = _attempts(place, folder, run_id)
        returned = json.loads((folder / "returned").read_text()) if (folder / "returned").exists() else None
        errors = "; ".join(file.read_text() for file in sorted(folder.glob("error-*")))
    finally:
        shutil.rmtree(folder)
    states = list(place.jobs(run_id).values())
    return Journey(
        faults,
        place.line.fired == len(faults),
        tuple(place.line.calls),
        attempts,
        lost=returned != RETURNED,
        duplicated=sum(state in ("running", "succeeded") for state in states) > 1,
        orphaned="running" in states,
        said=f"jobs {states}; {errors}",
    )


def _attempts(place: Place, folder: Path, run_id: str) -> int:
    """Do with a task what Airflow does, and return the number of the last attempt."""
    environment = place.environment
    if any(fault == HANG for _, fault in place.line.plan):
        environment = environment | _IMPATIENCE
    for number in range(1, _TRIES):
        for file in ("trigger", "event", "returned"):
            (folder / file).unlink(missing_ok=True)
        code = _process(place, place.task.execute, folder, environment, run_id, number)
        while code == 0 and not any((folder / file).exists() for file in ("event", "returned")):
            code = _process(place, place.task.wait, folder, environment, number)
            if code == -signal.SIGKILL:  # a triggerer that dies is followed by another
                code = 0
        if code == 0 and not (folder / "returned").exists():
            code = _process(place, place.task.resume, folder, environment, run_id, number)
        if code in (0, worker.FAILED_FOR_GOOD):
            return number
    return _TRIES


def _process(place: Place, function: Callable[..., None], *arguments: Any) -> int:
    """Run a function in a process of its own and return its exit code."""
    context = multiprocessing.get_context("forkserver")
    main = getattr(sys.modules["__main__"], "__spec__", None)  # which each process imports
    context.set_forkserver_preload([function.__module__, "tests.faults.warm", *([main.name] if main else [])])
    process = context.Process(target=function, args=arguments)
    process.start()
    place.line.serve(process)
    process.join(300)
    assert process.exitcode is not None, f"{function.__name__} does not end"
    return process.exitcode


def _general(path: str) -> str:
    """Return a path without what differs from run to run."""
    return re.sub(r"[0-9a-f]{12,}|run-[^/]+", "*", path.partition("?")[0] + ("#" + path.partition("#")[2]).rstrip("#"))
