"""Jobs that are waited for: what is known of each, who waits for it, and when it is asked about again."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from airflow_stepops.errors import EndKind, JobNotFoundError, StepopsError
from airflow_stepops.jobs.protocol import JobState, JobStatus

_LONGEST_PAUSE = 300.0
#: A service may take a moment to know a job that it has just accepted.
_UNKNOWN_LOOKS = 3

_log = logging.getLogger(__name__)


def worded(error: Exception) -> str:
    """Return what an error says; one that is not ours says little without its type."""
    return str(error) if isinstance(error, StepopsError) else f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class WatchedJob:
    """A job to wait for.

    :param job_id: the service's id.
    :param submitted_at: Unix time of the create call, by the service's clock where that is known.
    :param timeout: seconds the job may run, or ``None``.
    :param pending_timeout: seconds the job may wait, or ``None``.
    """

    job_id: str
    submitted_at: float
    timeout: int | None = None
    pending_timeout: int | None = None


@dataclass
class Backoff:
    """When a call that failed may be made again."""

    failures: int = 0
    _ends_at: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the call may be made."""
        return time.monotonic() >= self._ends_at

    def failed(self, usual: float) -> float:
        """Return the seconds until the next call: with jitter, more after each failure, at most five minutes.

        :param usual: seconds between two calls that work.
        """
        self.failures += 1
        pause = min(_LONGEST_PAUSE, usual * 2.0 ** min(self.failures, 12)) * random.uniform(0.5, 1.0)  # noqa: S311
        self._ends_at = time.monotonic() + pause
        return pause

    def worked(self) -> None:
        """Make the next call at the usual time."""
        self.failures, self._ends_at = 0, 0.0


@dataclass
class Waiter:
    """One who waits for a job.

    :param notify: takes lines for people.
    :param done: gets the status of the job once it has ended.
    """

    job: WatchedJob
    notify: Callable[[str], None]
    done: asyncio.Future[JobStatus]
    overdue: tuple[EndKind, str] | None = None
    stopping: Backoff = field(default_factory=Backoff)
    _told: dict[str, str] = field(default_factory=dict)
    #: Airflow finds the log of a trigger by context variables; the watcher's own are of the trigger that came first.
    _context: Context = field(default_factory=copy_context)

    def tell(self, topic: str, line: str) -> None:
        """Tell a line, as if the waiter had spoken itself; one that was the last on its topic is not told again."""
        if self._told.get(topic) == line:
            return
        self._told[topic] = line
        try:
            self._context.run(self.notify, line)
        except Exception:  # noqa: BLE001 - a line that is lost harms no job
            _log.exception("job %s: its waiter cannot be told: %s", self.job.job_id, line)

    def recovered(self, topic: str) -> None:
        """Forget the problem of a topic; when there was one, the job's state is told again."""
        if self._told.pop(topic, None) is not None:
            self._told.pop("state", None)

    def deadline_passed(
        self, status: JobStatus | None, now: float, *, timeout_is_enforced: bool
    ) -> tuple[EndKind, str] | None:
        """Return the kind of end and the reason when the job has run or waited too long.

        :param now: Unix time by the service's clock.
        :param timeout_is_enforced: the service itself ends what runs too long; nobody ends what waits too long.
        """
        job = self.job
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

    def end(self, status: JobStatus) -> None:
        """Let the wait end with this status."""
        if self.done.done():
            return
        if self.overdue is not None and status.state is not JobState.SUCCEEDED:
            kind, reason = self.overdue
            status = dataclasses.replace(status, kind=kind, reason=reason)
        self.done.set_result(status)


@dataclass
class AwaitedJob:
    """A job that somebody waits for.

    :param id: the service's id.
    :param known_until: Unix time by the service's clock: sweeps need not reach back behind it.
    :ivar seen_at: when the service last told of the job, by the monotonic clock.
    :ivar is_asked_for: it has to be described: it has ended, or no sweep tells of it.
    """

    id: str
    known_until: float
    waiters: list[Waiter] = field(default_factory=list)
    status: JobStatus | None = None
    seen_at: float = float("-inf")
    is_asked_for: bool = False
    asking: Backoff = field(default_factory=Backoff)
    _unknown: int = 0

    def swept(self, status: JobStatus | None) -> None:
        """Take what a sweep tells. Of an end it tells too little: the job is described, until that works."""
        self.is_asked_for = status is None or status.state.ended
        if status is not None and not status.state.ended:
            self._publish(status)

    def described(self, status: JobStatus) -> None:
        """Take what a describe tells."""
        self.is_asked_for = False
        self.asking.worked()
        for waiter in self.waiters:
            waiter.recovered("asking")
        self._publish(status)

    def not_found(self, error: JobNotFoundError) -> None:
        """Take it that the service does not know the job: after three times it has ended."""
        self.is_asked_for = True
        self.asking.worked()
        self.seen_at = time.monotonic()
        self._unknown += 1
        if self._unknown >= _UNKNOWN_LOOKS:
            reason = f"the service does not know the job any more: {error}"
            for waiter in self.waiters:
                waiter.end(JobStatus(self.id, JobState.FAILED, kind=EndKind.INFRASTRUCTURE, reason=reason))

    def failed(self, error: Exception, usual: float) -> None:
        """Take it that the job cannot be asked about for now.

        :param usual: see :meth:`Backoff.failed`.
        """
        self.asking.failed(usual)
        for waiter in self.waiters:
            waiter.tell("asking", f"cannot ask for the state of the job, trying again: {worded(error)}")

    def _publish(self, status: JobStatus) -> None:
        self.seen_at = time.monotonic()
        self._unknown = 0
        self.status = status
        for waiter in self.waiters:
            waiter.tell("state", f"job is {status.state.value}{f': {status.detail}' if status.detail else ''}")
            if status.state.ended:
                waiter.end(status)
