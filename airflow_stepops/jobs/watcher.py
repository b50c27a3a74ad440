"""One poller per event loop and cloud account, which serves all waiting triggers of a process.

The number of calls does not grow with the number of jobs: one job is described, several are found by one
sweep over what changed since the last look; a job that ended is described once. Where a service may have several jobs
of one name, sweeps also stop those that are too many. Failures of the service back
off with jitter and never end a job that may still be running.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
import weakref
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from airflow_stepops.errors import EndKind, JobNotFoundError, StepopsError
from airflow_stepops.jobs.protocol import JobService, JobState, JobStatus
from airflow_stepops.jobs.threads import in_thread

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds by which a sweep reaches back behind the last one: clocks differ, services are late.
_OVERLAP = 60.0
#: A job that no sweep mentioned for so many seconds is described.
_SILENCE = 600.0
_LONGEST_PAUSE = 300.0
#: A service may take a moment to know a job that it has just accepted.
_UNKNOWN_LOOKS = 3


@dataclass(frozen=True)
class WatchedJob:
    """A job to wait for.

    :param job_id: the service's id.
    :param submitted_at: Unix time of the create call.
    :param timeout: seconds the job may run, or ``None``.
    :param pending_timeout: seconds the job may wait, or ``None``.
    """

    job_id: str
    submitted_at: float
    timeout: int | None = None
    pending_timeout: int | None = None


@dataclass
class _Watch:
    job: WatchedJob
    tell: Callable[[str], None]
    done: asyncio.Future[JobStatus]
    seen_at: float = 0.0
    unknown: int = 0
    said: str = ""
    status: JobStatus | None = None
    overdue: tuple[EndKind, str] | None = None
    #: Airflow finds the log of a trigger by context variables; the watcher's own are of the trigger that came first.
    context: Context = field(default_factory=copy_context)

    def notify(self, line: str) -> None:
        """Tell the waiter, as if it had spoken itself."""
        self.context.run(self.tell, line)

    def deadline_passed(self, now: float, *, timeout_is_enforced: bool) -> tuple[EndKind, str] | None:
        """Return the kind of end and the reason when the job has run or waited too long.

        :param timeout_is_enforced: the service itself ends what runs too long; nobody ends what waits too long.
        """
        job, status = self.job, self.status
        if status is None or status.state.ended:
            return None
        if status.state is JobState.PENDING:
            if job.pending_timeout is not None and now - job.submitted_at > job.pending_timeout:
                return EndKind.CAPACITY, f"waited longer than pending_timeout={job.pending_timeout} s"
        elif timeout_is_enforced:
            return None
        elif job.timeout is not None and now - (status.started_at or job.submitted_at) > job.timeout:
            return EndKind.TIMEOUT, f"ran longer than timeout={job.timeout} s"
        return None


class Watcher:
    """Watches the jobs of one service. Use :func:`shared_watcher` to get the process's own."""

    def __init__(self, connect: Callable[[], JobService]) -> None:
        self._connect = connect
        self._service: JobService | None = None
        self._watches: dict[str, list[_Watch]] = {}
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._next_call = 0.0
        self._last_sweep = 0.0
        self._stopped: set[str] = set()

    @property
    def connected(self) -> JobService | None:
        """The service, ``None`` before it is connected."""
        return self._service

    async def service(self) -> JobService:
        """Return the service, connected in a thread at first use."""
        if self._service is None:
            async with self._turn:
                if self._service is None:
                    self._service = await in_thread(self._connect)
        return self._service

    async def wait(self, job: WatchedJob, notify: Callable[[str], None]) -> JobStatus:
        """Return the status of the job once it has ended.

        :param notify: called in the event loop with a line for people when something changes.
        """
        watch = _Watch(job, notify, asyncio.get_running_loop().create_future())
        self._watches.setdefault(job.job_id, []).append(watch)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="stepops-watcher")
        try:
            return await watch.done
        finally:
            watches = self._watches[job.job_id]
            watches.remove(watch)
            if not watches:
                del self._watches[job.job_id]

    async def _run(self) -> None:
        failures = 0
        while self._watches:
            try:
                service = await self.service()
                await self._look(service)
            except Exception as error:  # noqa: BLE001 - whatever a service raises, its jobs go on
                failures += 1
                self._tell_all(f"cannot ask for the state of the job, trying again: {error}")
                await asyncio.sleep(self._pause(failures))
            else:
                failures = 0
                await asyncio.sleep(service.poll_seconds)

    def _pause(self, failures: int) -> float:
        poll = self._service.poll_seconds if self._service else 1.0
        return min(_LONGEST_PAUSE, poll * 2.0 ** min(failures, 12)) * random.uniform(0.5, 1.0)  # noqa: S311

    async def _look(self, service: JobService) -> None:
        if len(self._watches) == 1 and service.unique_names:
            (job_id,) = self._watches
            await self._describe(service, job_id)
        else:
            await self._sweep(service)
        for watches in list(self._watches.values()):
            for watch in watches:
                await self._enforce(service, watch)

    async def _sweep(self, service: JobService) -> None:
        started = time.time()
        waiting = [watch for watches in self._watches.values() for watch in watches]
        unseen = [watch.job.submitted_at for watch in waiting if not watch.seen_at]
        since = min([self._last_sweep or started, *unseen]) - _OVERLAP
        changed = await self._call(service, service.changed, since)
        self._last_sweep = started
        self._publish_running(changed)
        await self._stop_duplicates(service, changed)
        ended = [job_id for job_id in self._watches if job_id in changed and changed[job_id].state.ended]
        silent = min(
            (watch for watch in waiting if watch.job.job_id not in changed and started - watch.seen_at > _SILENCE),
            key=lambda watch: watch.seen_at,
            default=None,
        )
        for job_id in [*ended, *([silent.job.job_id] if silent else [])]:
            await self._describe(service, job_id)

    def _publish_running(self, statuses: Mapping[str, JobStatus]) -> None:
        for job_id, status in statuses.items():
            if job_id in self._watches and not status.state.ended:
                self._publish(job_id, status)

    async def _stop_duplicates(self, service: JobService, statuses: Mapping[str, JobStatus]) -> None:
        """Stop what has the name of a job that is waited for: an attempt needs no second one."""
        waited_for: dict[str, _Watch] = {}
        for job_id, (watch, *_) in self._watches.items():
            status = statuses.get(job_id) or watch.status
            if status is not None and status.name:
                waited_for[status.name] = watch
        for job_id, status in statuses.items():
            if status.name not in waited_for or job_id in self._watches or status.state.ended:
                continue
            if job_id in self._stopped:  # lists may be behind
                continue
            notify = waited_for[status.name].notify
            try:
                await self._call(service, service.cancel, job_id)
            except StepopsError as error:
                notify(f"job {job_id} is a second one of this attempt and cannot be stopped, trying again: {error}")
            else:
                self._stopped.add(job_id)
                notify(f"job {job_id} is stopped: it is a second one of this attempt")

    async def _describe(self, service: JobService, job_id: str) -> None:
        try:
            status = await self._call(service, service.describe, job_id)
        except JobNotFoundError as error:
            for watch in self._watches.get(job_id, ()):
                watch.unknown += 1
                watch.seen_at = time.time()
                if watch.unknown >= _UNKNOWN_LOOKS and not watch.done.done():
                    reason = f"the service does not know the job any more: {error}"
                    watch.done.set_result(
                        JobStatus(job_id, JobState.FAILED, kind=EndKind.INFRASTRUCTURE, reason=reason)
                    )
            return
        self._publish(job_id, status)

    def _publish(self, job_id: str, status: JobStatus) -> None:
        for watch in self._watches.get(job_id, ()):
            watch.seen_at = time.time()
            watch.unknown = 0
            said = status.state.value + (f": {status.detail}" if status.detail else "")
            if said != watch.said:
                watch.said = said
                watch.notify(f"job is {said}")
            watch.status = status
            if status.state.ended and not watch.done.done():
                if watch.overdue is not None and status.state is not JobState.SUCCEEDED:
                    kind, reason = watch.overdue
                    status = dataclasses.replace(status, kind=kind, reason=reason)
                watch.done.set_result(status)

    async def _enforce(self, service: JobService, watch: _Watch) -> None:
        """Stop a job that runs or waits longer than allowed, where the service does not do it."""
        if watch.overdue:
            return
        if self._overdue(service, watch) is None:
            return
        # What is known may be old: a sweep need not tell that a job runs by now.
        await self._describe(service, watch.job.job_id)
        overdue = self._overdue(service, watch)
        if overdue is not None:
            watch.notify(f"job is stopped: it {overdue[1]}")
            await self._call(service, service.cancel, watch.job.job_id)
            watch.overdue = overdue

    def _overdue(self, service: JobService, watch: _Watch) -> tuple[EndKind, str] | None:
        return watch.deadline_passed(time.time(), timeout_is_enforced=service.enforces_timeout)

    def _tell_all(self, line: str) -> None:
        for watches in self._watches.values():
            for watch in watches:
                if watch.said != line:
                    watch.said = line
                    watch.notify(line)

    async def _call(self, service: JobService, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the service in a thread, no faster than it allows."""
        async with self._turn:
            now = time.monotonic()
            await asyncio.sleep(max(0.0, self._next_call - now))
            self._next_call = time.monotonic() + service.seconds_between_calls
        return await in_thread(function, *args, **kwargs)


_watchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Watcher]] = weakref.WeakKeyDictionary()


def shared_watcher(account_key: str, connect: Callable[[], JobService]) -> Watcher:
    """Return the watcher of the running event loop for one account, made at first use.

    :param account_key: names flavor, connection, account and region.
    :param connect: makes the service; called at most once, in a thread.
    """
    watchers = _watchers.setdefault(asyncio.get_running_loop(), {})
    return watchers.setdefault(account_key, Watcher(connect))
