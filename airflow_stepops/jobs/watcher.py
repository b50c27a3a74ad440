"""One poller per event loop and cloud account, which serves all waiting triggers of a process.

The number of calls does not grow with the number of jobs: one job is described, several are found by one
sweep over what changed since the last look; a job that ended is described once. Where a service may have several jobs
of one name, sweeps also stop those that are too many. What fails for one job is tried again with a back-off of its own,
and holds up no other job; a sweep that fails backs off for all. No failure ends a job that may still be running.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from airflow_stepops.errors import EndKind, JobNotFoundError
from airflow_stepops.jobs.protocol import JobService, JobState, JobStatus
from airflow_stepops.jobs.threads import in_thread
from airflow_stepops.jobs.waiting import AwaitedJob, Backoff, Waiter, WatchedJob, worded

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds by which a sweep reaches back behind the last one: services are late, and tell the time in whole seconds.
_OVERLAP = 60.0
#: A job that no sweep mentioned for so many seconds is described.
_SILENCE = 600.0


class Watcher:
    """Watches the jobs of one service. Use :func:`shared_watcher` to get the process's own."""

    def __init__(self, connect: Callable[[], JobService]) -> None:
        self._connect = connect
        self._service: JobService | None = None
        self._jobs: dict[str, AwaitedJob] = {}
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._next_call = 0.0
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

    async def wait(self, watched: WatchedJob, notify: Callable[[str], None]) -> JobStatus:
        """Return the status of the job once it has ended.

        :param notify: called in the event loop with a line for people when something changes.
        """
        waiter = Waiter(watched, notify, asyncio.get_running_loop().create_future())
        job = self._jobs.get(watched.job_id)
        if job is None:
            job = self._jobs[watched.job_id] = AwaitedJob(watched.job_id, known_until=watched.submitted_at)
        else:
            job.is_asked_for = True  # what the others were told may have been the end
        job.waiters.append(waiter)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="stepops-watcher")
        try:
            return await waiter.done
        finally:
            job.waiters.remove(waiter)
            if not job.waiters:
                del self._jobs[job.id]

    async def _run(self) -> None:
        trouble = Backoff()
        while self._jobs:
            try:
                service = await self.service()
                await self._look(service)
            except Exception as error:  # noqa: BLE001 - whatever a service raises, its jobs go on
                usual = self._service.poll_seconds if self._service else 1.0
                pause = trouble.failed(usual)
                self._tell_all(error)
            else:
                pause = service.poll_seconds
                trouble.worked()
            await asyncio.sleep(pause)

    def _tell_all(self, error: Exception) -> None:
        for job in self._jobs.values():
            for waiter in job.waiters:
                waiter.tell("account", f"cannot ask for the state of the job, trying again: {worded(error)}")

    async def _look(self, service: JobService) -> None:
        jobs = list(self._jobs.values())
        is_swept = len(jobs) > 1 or not service.unique_names
        told = await self._sweep(service, jobs) if is_swept else dict.fromkeys(self._jobs)
        for job in jobs:
            for waiter in job.waiters:
                waiter.recovered("account")
        if not service.unique_names:
            await self._stop_duplicates(service, jobs, told)
        await asyncio.gather(*(self._attend(service, job, told) for job in jobs))

    async def _sweep(self, service: JobService, jobs: list[AwaitedJob]) -> Mapping[str, JobStatus | None]:
        """Return what the service tells of the jobs that changed; ``None`` for a job that has to be described."""
        began = time.monotonic()
        since = min(job.known_until for job in jobs) - _OVERLAP
        changed = await self._call(service, service.changed, since)
        known_until = _service_time(service, began)
        for job in jobs:
            job.known_until = known_until
        quiet = [job for job in jobs if job.id not in changed and not job.is_asked_for]
        silent = min(quiet, key=lambda job: job.seen_at, default=None)
        if silent is None or began - silent.seen_at <= _SILENCE:
            return changed
        return {**changed, silent.id: None}

    async def _stop_duplicates(
        self, service: JobService, jobs: list[AwaitedJob], told: Mapping[str, JobStatus | None]
    ) -> None:
        """Stop what has the name of a job that is waited for: an attempt needs no second one."""
        known = ((job, told.get(job.id) or job.status) for job in jobs)
        awaited = {status.name: job for job, status in known if status is not None and status.name}
        for job_id, status in told.items():
            if status is None or status.name not in awaited or job_id in self._jobs or job_id in self._stopped:
                continue  # of one that was stopped, lists may be behind
            if status.state.ended or status.state is JobState.STOPPING:
                continue
            waiters = awaited[status.name].waiters
            try:
                await self._call(service, service.cancel, job_id)
            except Exception as error:  # noqa: BLE001 - the job that is waited for is well
                line = (
                    f"job {job_id} is a second one of this attempt and cannot be stopped, trying again: {worded(error)}"
                )
            else:
                self._stopped.add(job_id)
                line = f"job {job_id} is stopped: it is a second one of this attempt"
            for waiter in waiters:
                waiter.tell(f"job {job_id}", line)

    async def _attend(self, service: JobService, job: AwaitedJob, told: Mapping[str, JobStatus | None]) -> None:
        """Do for one job what a look found to do. What fails is told to whoever waits for this job."""
        try:
            if job.id in told:
                job.swept(told[job.id])
            if job.is_asked_for and job.asking.is_over and job.waiters:
                await self._describe(service, job)
            for waiter in list(job.waiters):
                await self._enforce(service, job, waiter)
        except Exception as error:  # noqa: BLE001 - the other jobs are well
            job.failed(error, service.poll_seconds)

    async def _describe(self, service: JobService, job: AwaitedJob) -> None:
        began = time.monotonic()
        try:
            status = await self._call(service, service.describe, job.id)
        except JobNotFoundError as error:
            job.not_found(error)
            return
        job.known_until = _service_time(service, began)
        job.described(status)

    async def _enforce(self, service: JobService, job: AwaitedJob, waiter: Waiter) -> None:
        """Stop a job that runs or waits longer than allowed, where the service does not do it."""
        is_free = job.asking.is_over and waiter.stopping.is_over
        if waiter.overdue or waiter.done.done() or not is_free or self._overdue(service, job, waiter) is None:
            return
        # What is known may be old: a sweep need not tell that a job runs by now.
        await self._describe(service, job)
        overdue = self._overdue(service, job, waiter)
        if overdue is None or job.is_asked_for:
            return
        try:
            await self._call(service, service.cancel, job.id)
        except Exception as error:  # noqa: BLE001 - the other jobs are well
            waiter.stopping.failed(service.poll_seconds)
            waiter.tell("stopping", f"job cannot be stopped, though it {overdue[1]}, trying again: {worded(error)}")
        else:
            waiter.overdue = overdue
            waiter.tell("stopping", f"job is stopped: it {overdue[1]}")

    def _overdue(self, service: JobService, job: AwaitedJob, waiter: Waiter) -> tuple[EndKind, str] | None:
        return waiter.deadline_passed(job.status, service.now(), timeout_is_enforced=service.enforces_timeout)

    async def _call(self, service: JobService, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the service in a thread, no faster than it allows."""
        async with self._turn:
            now = time.monotonic()
            await asyncio.sleep(max(0.0, self._next_call - now))
            self._next_call = time.monotonic() + service.seconds_between_calls
        return await in_thread(function, *args, **kwargs)


def _service_time(service: JobService, began: float) -> float:
    """Return the time by the service's clock when a call began that it has just answered.

    :param began: by the monotonic clock.
    """
    return service.now() - (time.monotonic() - began)


_watchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Watcher]] = weakref.WeakKeyDictionary()


def shared_watcher(account_key: str, connect: Callable[[], JobService]) -> Watcher:
    """Return the watcher of the running event loop for one account, made at first use.

    :param account_key: names flavor, connection, account and region.
    :param connect: makes the service; called at most once, in a thread.
    """
    watchers = _watchers.setdefault(asyncio.get_running_loop(), {})
    return watchers.setdefault(account_key, Watcher(connect))
