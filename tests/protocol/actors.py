"""What runs beside each other: the real code of workers, of the triggerer, of a person and of the orphan sweep."""

from __future__ import annotations

import dataclasses
import json
from functools import cache, partial
from typing import Any

from airflow_stepops.clouds.local.container_registry import LocalContainerRegistry
from airflow_stepops.clouds.local.image_builder import OciImageBuilder
from airflow_stepops.errors import JobRefusedError, StepopsError
from airflow_stepops.jobs.archive import RunArchive
from airflow_stepops.jobs.attempt import attempt_directory, job_name
from airflow_stepops.jobs.cancel import cancel_jobs
from airflow_stepops.jobs.launch import Launcher
from airflow_stepops.jobs.ledger import LedgerEntry, work_digest
from airflow_stepops.jobs.orphans import find_orphans, stop_orphans
from airflow_stepops.jobs.outcome import FINAL_KINDS
from airflow_stepops.jobs.protocol import JobRequest, JobState, JobStatus
from airflow_stepops.operators.step import StepTask
from airflow_stepops.operators.versions import AirflowFailException
from airflow_stepops.runtime.result import SUCCEEDED, JobResult
from airflow_stepops.runtime.spec import Attempt, JobSpec, StepSource
from airflow_stepops.stacks.models import Stack
from airflow_stepops.triggers.job import JobTrigger, status_document
from tests.protocol.doors import NOW, ROOT, Jobs, Objects, TaskInstance, on
from tests.protocol.programs import Line, Program

_STACK = Stack("protocol", Objects(), LocalContainerRegistry(), OciImageBuilder(), (Jobs(name="there"),))
_SOURCE = StepSource("dag_file.py", "dag_file", "train", "0" * 64)

#: Which code runs, by its name below, and its arguments.
ActorKey = tuple[Any, ...]


@cache
def attempt(number: int) -> Attempt:
    """Return the attempt of a number of the one task instance there is."""
    return Attempt(
        TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, -1, number, "instance", f"ti-{number}"
    )


@cache
def name_of_job(number: int) -> str:
    """Return the name of the job that an attempt launches."""
    return job_name(ROOT, attempt(number))


@cache
def result_of(number: int) -> tuple[str, bytes]:
    """Return key and content of what the job of an attempt leaves."""
    return _key(number, "result.json"), JobResult(attempt(number), SUCCEEDED).to_json()


@cache
def claim_of(number: int) -> str:
    """Return the key of the claim of an attempt's job."""
    return _key(number, "claim.json")


def _key(number: int, name: str) -> str:
    return f"{attempt_directory(ROOT, attempt(number))}/{name}".removeprefix(f"{ROOT}/")


def program(key: ActorKey) -> Program:
    """Return the program of an actor."""
    kind, *arguments = key
    return Program(partial(_ACTORS[kind], *arguments))


def _attempt(number: int, last_try: int, work: int, line: Line) -> str:
    """Launch as :meth:`StepTask.execute` does, but for the image; the signal of a kill runs the stopper's thread."""
    with on(line):
        ti = TaskInstance(number)
        who = attempt(number)
        spec = JobSpec(who, _SOURCE, ROOT, attempt_directory(ROOT, who), [work])
        request = JobRequest(name_of_job(number), who, "image@sha256:1", spec.uri)
        component = _STACK.step_operator
        new = LedgerEntry(
            who,
            spec.directory,
            who,
            work_digest(spec, "requirements", {}),
            component.document(),
            request.name,
            last_try=last_try,
        )
        launcher = Launcher(_STACK.artifact_store.open(), component, _STACK.operator_of, lambda _: None)
        line.on_signal = partial(_stop, launcher)
        try:
            launch = launcher.launch(new, spec, request)
            entry = dataclasses.asdict(launch.entry)
            facts = {
                "job_id": launch.entry.job_id,
                "entry": entry,
                "artifact_store": _STACK.artifact_store.document(),
            }
            ti.xcom_push("stepops", facts)
            launcher.check_wanted()
        except StepopsError as error:
            final = isinstance(error, JobRefusedError) and error.kind in FINAL_KINDS
            ti.fail(f"{type(error).__name__}: {error}", final=final)
            return str(error)
        line.on_signal = lambda: None
        ti.defer(json.dumps(entry, sort_keys=True), launch.entry.job_name)
        return f"waits for {launch.entry.job_name}"


def _stop(launcher: Launcher) -> None:
    launcher.stop()
    launcher._stop_when_asked()


def _resume(number: int, entry: str, ended: str, line: Line) -> str:
    """Go on with a task whose trigger fired, or whose deferral ended without an event.

    :param ended: the job's state, or what Airflow says of the deferral.
    """
    kwargs: dict[str, Any]
    if ended in [state.value for state in JobState]:
        fields = json.loads(entry)
        status = JobStatus(fields["job_id"], JobState(ended), created_at=NOW, ended_at=NOW)
        event = {
            "entry": fields,
            "artifact_store": _STACK.artifact_store.document(),
            "status": status_document(status),
            "log_tail": [],
        }
        method, kwargs = "resume", {"event": event}
    else:
        method, kwargs = "__fail__", {"error": ended}
    with on(line):
        ti = TaskInstance(number)
        try:
            _task().resume_execution(method, kwargs, {"ti": ti})  # type: ignore[typeddict-item]
        except AirflowFailException as error:
            ti.fail(str(error), final=True)
            return "failed for good"
        except StepopsError as error:
            ti.fail(str(error), final=False)
            return "failed"
        ti.succeed()
        return "succeeded"


@cache
def _task() -> StepTask:
    return StepTask(
        task_id=TaskInstance.task_id, python_callable=_task, step_operator=True, timeout=60, pending_timeout=60
    )


def _kill(number: int, entry: str, line: Line) -> str:
    """Tell the trigger of an attempt that it is killed."""
    with on(line):
        trigger = JobTrigger(json.loads(entry), _STACK.artifact_store.document(), NOW)
        trigger.task_instance = TaskInstance(number)  # type: ignore[assignment]
        trigger._stop_if_unwanted(None)
        return ""


def _cancel(line: Line) -> str:
    """Do what ``stepops cancel`` does."""
    with on(line):
        try:
            run = RunArchive(_STACK.artifact_store.open()).run(TaskInstance.dag_id, TaskInstance.run_id)
        except StepopsError as error:
            return str(error)
        return "; ".join(sorted(f"{one.step.job_name}: {one.said}" for one in cancel_jobs(_STACK, run.steps)))


def _sweep(line: Line) -> str:
    """Do what ``stepops prune --orphans`` does, when Airflow says that the task is over."""
    with on(line):
        orphans = find_orphans(_STACK, lambda _: True, NOW)
        return "; ".join(f"{one.step.job_name}: {one.said}" for one in stop_orphans(_STACK, orphans))


_ACTORS = {"attempt": _attempt, "resume": _resume, "kill": _kill, "cancel": _cancel, "sweep": _sweep}
