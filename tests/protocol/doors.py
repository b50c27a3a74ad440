"""The doors through which the code reaches what is outside of its process; behind each is the line of the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn
from unittest import mock

from airflow_stepops.artifacts.store import ArtifactStore, Backend
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState, JobStatus, LogChunk
from airflow_stepops.operators.step import StepTask
from airflow_stepops.stacks import flavors
from airflow_stepops.stacks.components import ArtifactStoreComponent, ImageTarget, StepOperatorComponent
from airflow_stepops.triggers.job import JobTrigger
from tests.protocol.programs import Line

ROOT = "s3://protocol"
#: The time at which everything happens.
NOW = 1_800_000_000.0

_lines: list[Line] = []


@contextmanager
def on(line: Line) -> Iterator[None]:
    """Let all doors lead to a line."""
    _lines.append(line)
    try:
        yield
    finally:
        _lines.pop()


def _ask(target: str, name: str, *args: Any) -> Any:
    return _lines[-1].ask(target, name, *args)


class _Objects(Backend):
    def get(self, key: str, uri: str) -> bytes:
        data: bytes = _ask("store", "get", key)
        return data

    def put(self, key: str, uri: str, data: bytes) -> None:
        if not key.endswith("/spec.json"):  # read by the job, and by nobody whose calls are put into an order
            _ask("store", "put", key, data)

    def put_if_absent(self, key: str, uri: str, data: bytes) -> None:
        _ask("store", "put_if_absent", key, data)

    def list(self, folder: str, uri: str) -> dict[str, float]:
        return dict.fromkeys(_ask("store", "list", folder), NOW)

    def delete(self, key: str, uri: str) -> None:
        _ask("store", "delete", key)

    def size(self, key: str, uri: str) -> NoReturn:
        raise NotImplementedError

    reader = writer = size  # type: ignore[assignment]


class _Store(ArtifactStore):
    def _open(self, store: Any) -> Backend:
        return _Objects()


class _Service(JobService):
    """A service that takes the name of a job for its id, and makes one job of a name, as SageMaker does."""

    poll_seconds = 1.0

    def submit(self, request: JobRequest) -> JobStatus:
        return _status(request.name, _ask("service", "submit", request.name, request.attempt.try_number))

    def find(self, name: str) -> JobStatus | None:
        state = _ask("service", "find", name)
        return _status(name, state) if state else None

    def describe(self, job_id: str) -> JobStatus:
        return _status(job_id, _ask("service", "describe", job_id))

    def cancel(self, job_id: str) -> None:
        _ask("service", "cancel", job_id)

    def changed(self, since: float) -> Mapping[str, JobStatus]:
        raise NotImplementedError

    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        raise NotImplementedError

    def console_url(self, job_id: str) -> str:
        return ""


def _status(name: str, state: str) -> JobStatus:
    return JobStatus(name, JobState(state), created_at=NOW)


class Objects(ArtifactStoreComponent):
    """The artifact store."""

    flavor: ClassVar[str] = "protocol"

    def root(self) -> str:
        return ROOT

    def open(self) -> ArtifactStore:
        return _Store(ROOT)


class Jobs(StepOperatorComponent):
    """The step operator."""

    flavor: ClassVar[str] = "protocol"

    def target(self) -> ImageTarget:
        return ImageTarget(None, None)

    def connect(self) -> JobService:
        return _Service()

    def account_key(self) -> str:
        return "protocol"


class TaskInstance:
    """What the worker and the triggerer have of Airflow.

    :param try_number: of the attempt that it was given to.
    """

    dag_id, run_id, task_id, map_index = "churn", "manual", "train", -1

    def __init__(self, try_number: int) -> None:
        self.try_number = try_number
        self.id = f"ti-{try_number}"

    def xcom_push(self, key: str, value: dict[str, Any]) -> None:
        _ask("airflow", "push", self.try_number, json.dumps(value, sort_keys=True))

    def xcom_pull(self, **_: Any) -> Any:
        return _pull()

    def defer(self, entry: str, job_name: str) -> None:
        """End the worker's part: from now on a trigger waits."""
        _ask("airflow", "defer", self.try_number, entry, job_name)

    def succeed(self) -> None:
        _ask("airflow", "succeed", self.try_number)

    def fail(self, text: str, *, final: bool) -> None:
        _ask("airflow", "fail", self.try_number, final, text)


def _pull(**_: Any) -> Any:
    return json.loads(_ask("airflow", "pull") or "null")


def _states(**_: Any) -> dict[str, dict[str, Any]]:
    return {TaskInstance.run_id: {TaskInstance.task_id: _ask("airflow", "state")}}


class _InOrder(Executor):
    """Does in the one thread there is what is done in several otherwise."""

    def __init__(self, *_: Any) -> None:
        pass

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def simulated() -> Iterator[None]:
    """Let the doors be the only ones: clock, threads, Airflow's side of tasks and triggers."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from airflow.sdk.execution_time.xcom import XCom

    clock = SimpleNamespace(time=lambda: NOW, monotonic=lambda: _lines[-1].now, sleep=lambda _: _ask("service", "wait"))
    unhurried = SimpleNamespace(monotonic=clock.monotonic, sleep=lambda _: None)
    with ExitStack() as patches:
        for name, value in {
            "airflow_stepops.jobs.launch.time": clock,
            "airflow_stepops.jobs.known_job.time": clock,
            "airflow_stepops.jobs.ledger.time": clock,
            "tenacity.time": unhurried,
            "tenacity.nap.time": unhurried,
            "airflow_stepops.jobs.cancel.ThreadPoolExecutor": _InOrder,
            "airflow_stepops.jobs.archive.ThreadPoolExecutor": _InOrder,
        }.items():
            patches.enter_context(mock.patch(name, value))
        patches.enter_context(mock.patch.object(RuntimeTaskInstance, "get_task_states", _states))
        patches.enter_context(mock.patch.object(XCom, "get_one", _pull))
        for speaker in (StepTask, JobTrigger):
            patches.enter_context(mock.patch.object(speaker, "log", logging.Logger("quiet", logging.CRITICAL)))
        for kind, component in (("artifact_stores", "Objects"), ("step_operators", "Jobs")):
            path = f"{__name__}:{component}"
            patches.enter_context(mock.patch.dict(flavors._BUILT_IN[kind], {"protocol": path}))
        yield
