"""The trigger that waits for a step's job. Imported inside the triggerer's event loop: it stays light."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import tenacity
from airflow.configuration import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_stepops.errors import EndKind, StepopsError
from airflow_stepops.jobs.known_job import end
from airflow_stepops.jobs.ledger import CANCEL, Ledger, LedgerEntry
from airflow_stepops.jobs.logs import LogFollower
from airflow_stepops.jobs.outcome import Outcome
from airflow_stepops.jobs.protocol import JobService, JobState, JobStatus
from airflow_stepops.jobs.threads import in_thread
from airflow_stepops.jobs.waiting import WatchedJob
from airflow_stepops.jobs.watcher import Watcher, shared_watcher
from airflow_stepops.links.job import JOB_KEY
from airflow_stepops.stacks.components import ArtifactStoreComponent, StepOperatorComponent
from airflow_stepops.stacks.flavors import component_from_document

#: Before 3.3 a trigger learns of a person's action only by its cancellation.
_HAS_ON_KILL = hasattr(BaseTrigger, "on_kill")

#: Once Airflow's triggerer knows that a trigger has ended, it puts no more lines into the task's log. It may be behind
#: with them by what fits into a socket's buffer: a second's work of a busy triggerer.
_LOG_SECONDS = 3.0

_stopping: set[asyncio.Task[None]] = set()

#: Whether this process has asked Airflow for anything yet.
_asked = threading.Event()

#: Asks Airflow again while it cannot answer, as it may after the stall that made it tell of a kill.
_patiently = tenacity.retry(
    wait=tenacity.wait_exponential(multiplier=0.5, max=10), stop=tenacity.stop_after_delay(60), reraise=True
)


class JobTrigger(BaseTrigger):
    """Waits until a job has ended, hands its log on, and stops it when a person ends the task.

    :param entry: the JSON form of the attempt's :class:`~airflow_stepops.jobs.ledger.LedgerEntry`.
    :param artifact_store: document of the artifact store component, which holds the ledger.
    :param submitted_at: Unix time of the create call.
    :param timeout: seconds the job may run, or ``None``.
    :param pending_timeout: seconds the job may wait, or ``None``.
    """

    def __init__(
        self,
        entry: dict[str, Any],
        artifact_store: dict[str, Any],
        submitted_at: float,
        timeout: int | None = None,
        pending_timeout: int | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entry = entry
        self.artifact_store = artifact_store
        self.submitted_at = submitted_at
        self.timeout = timeout
        self.pending_timeout = pending_timeout
        self._told_at = 0.0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments. Airflow stores them as plain text: nothing secret is in them."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "entry": self.entry,
                "artifact_store": self.artifact_store,
                "submitted_at": self.submitted_at,
                "timeout": self.timeout,
                "pending_timeout": self.pending_timeout,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: how the job ended (the JSON form of its status) and the tail of its log."""
        try:
            status, tail = await self._wait()
        except asyncio.CancelledError:
            if not _HAS_ON_KILL:
                await self._stop_in_background()
            raise
        event = {
            "entry": self.entry,
            "artifact_store": self.artifact_store,
            "status": status_document(status),
            "log_tail": tail,
        }
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Stop the job, if a person's action made it unwanted."""
        await self._stop_in_background()

    async def _wait(self) -> tuple[JobStatus, list[str]]:
        begun = time.monotonic()
        watcher = self._watcher()
        service = await watcher.service()
        await in_thread(self._ask_once)
        job = WatchedJob(self.entry["job_id"], self.submitted_at, self.timeout, self.pending_timeout)
        follower = LogFollower(service, job.job_id, self._tell)
        following = asyncio.create_task(follower.follow())
        try:
            status = await watcher.wait(job, lambda line: self._tell(f"[stepops] {line}"))
        except asyncio.CancelledError:
            following.cancel()
            raise
        await follower.finish(following)
        if self.task_instance is not None:  # None under dag.test()
            end_at = max(begun + _settling_seconds(), self._told_at + _LOG_SECONDS)
            await asyncio.sleep(end_at - time.monotonic())
        return status, list(follower.tail)

    def _tell(self, line: str) -> None:
        self.log.info("%s", line)
        self._told_at = time.monotonic()

    def _watcher(self) -> Watcher:
        component = self._component()
        return shared_watcher(component.account_key(), component.connect)

    def _component(self) -> StepOperatorComponent:
        return component_from_document(StepOperatorComponent, self.entry["component"])

    async def _stop_in_background(self) -> None:
        # Airflow 3.3 cancels the coroutine again every second, so the work is a task of its own in a thread that cannot
        # be interrupted: not one of the event loop's few, since a person may end hundreds of tasks at once.
        thread = ThreadPoolExecutor(1, "stepops-stop")
        work = sync_to_async(self._stop_if_unwanted, thread_sensitive=False, executor=thread)
        stopping = asyncio.create_task(work(self._watcher().connected))
        _stopping.add(stopping)
        stopping.add_done_callback(_stopping.discard)
        stopping.add_done_callback(lambda _: thread.shutdown(wait=False))
        await asyncio.shield(stopping)

    def _stop_if_unwanted(self, connected: JobService | None) -> None:
        entry = LedgerEntry.from_document(self.entry)
        if self._still_waited_for():
            return
        ledger = Ledger(component_from_document(ArtifactStoreComponent, self.artifact_store).open(), entry.attempt)
        if not self._claim(ledger):
            self.log.info("[stepops] a later attempt may go on with the job: it is left running")
            return
        self.log.info("[stepops] the task does not wait any more: stopping job %s", entry.job_name)
        try:
            service = connected or self._component().connect()
            end(ledger, service, entry.job_id, Outcome(EndKind.CANCELLED, "its task was ended or cleared"))
        except StepopsError as error:
            self.log.error("[stepops] job %s may go on: %s", entry.job_name, error)

    def _claim(self, ledger: Ledger) -> bool:
        try:
            return ledger.claim(CANCEL)
        except Exception as error:  # noqa: BLE001 - a store that is away must not keep an unwanted job running
            self.log.warning("[stepops] cannot write the claim: %s", error)
            return self._is_over()

    def _is_over(self) -> bool:
        """Whether the task has ended in Airflow: no later attempt goes on with its job then, nor stops it itself."""
        from airflow_stepops.jobs.orphans import OVER

        ti = self.task_instance
        try:
            return ti is None or _patiently(task_state)(ti) in (None, *OVER)
        except Exception as error:  # noqa: BLE001 - a job that is stopped is lost, one that goes on is found later
            self.log.warning("[stepops] cannot check whether the task has ended: %s", error)
            return False

    def _ask_once(self) -> None:
        """Have Airflow's answers ready before a person acts: the first one of a process takes seconds."""
        if self.task_instance is not None and not _asked.is_set():
            _asked.set()
            with suppress(Exception):
                task_state(self.task_instance)

    def _still_waited_for(self) -> bool:
        """Whether the task instance is still deferred on this very job.

        A triggerer that stalled and lost its triggers is told of a kill that nobody asked for; after a clear, the
        state alone may be that of the next try, so what that try has told is looked at too. What an earlier try has
        told after it counts for nothing: its worker was thought to be dead.
        """
        ti = self.task_instance
        if ti is None:  # as under dag.test(), where nobody can act on a deferred task
            return False
        try:
            if _patiently(task_state)(ti) != "deferred":
                return False
            current = _patiently(told_facts)(ti)
        except Exception as error:  # noqa: BLE001 - a job that is stopped is lost, one that goes on is found later
            self.log.warning("[stepops] cannot check whether the task still waits, leaving its job alone: %s", error)
            return True
        if current is None:
            return False
        return current.get("job_id") == self.entry["job_id"] or self._is_of_earlier_try(current)

    def _is_of_earlier_try(self, told: dict[str, Any]) -> bool:
        """Whether an earlier try of the same task instance has told what Airflow keeps; without an entry, its end."""
        if "entry" not in told:
            return True
        mine, other = self.entry["attempt"], told["entry"]["attempt"]
        return bool(other["instance"] == mine["instance"] and other["try_number"] < mine["try_number"])


def _settling_seconds() -> float:
    """Return how long Airflow may take to notice that a worker has let go of a task that was deferred.

    A task that goes on before that is taken for one whose worker died.
    """
    return conf.getint("workers", "min_heartbeat_interval", fallback=5) + 3.0


def task_state(ti: Any) -> str | None:
    """Return the state of a task instance as Airflow has it now, ``None`` when it does not know it.

    :param ti: has ``dag_id``, ``run_id``, ``task_id`` and ``map_index``.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    key = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state = (states.get(ti.run_id) or {}).get(key)
    return None if state is None else str(state)


def told_facts(ti: Any) -> dict[str, Any] | None:
    """Return what a step has said of itself in XCom, ``None`` when Airflow has nothing of it.

    :param ti: see :func:`task_state`.
    """
    from airflow.sdk.execution_time.xcom import XCom

    facts = XCom.get_one(key=JOB_KEY, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)
    return facts if isinstance(facts, dict) else None


def status_document(status: JobStatus) -> dict[str, Any]:
    """Return a status as JSON for the event."""
    document = dataclasses.asdict(status)
    document["state"] = status.state.value
    document["kind"] = status.kind.value if status.kind else None
    document["metadata"] = dict(status.metadata)
    return document


def status_from_document(document: Mapping[str, Any]) -> JobStatus:
    """Rebuild a status from the JSON of the event."""
    kind = document["kind"]
    return JobStatus(**{**document, "state": JobState(document["state"]), "kind": EndKind(kind) if kind else None})
