"""What a managed service must be able to do for us. Each cloud implements :class:`JobService` once.

All calls are synchronous and may block; the watcher runs them in threads. Every implementation raises
:class:`~airflow_stepops.errors.TransientServiceError` for what may pass by itself (throttling, 5xx, resets,
expired credentials), :class:`~airflow_stepops.errors.JobNotFoundError` for an unknown job and
:class:`~airflow_stepops.errors.JobRefusedError` for a request that can never work.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_stepops.errors import EndKind
from airflow_stepops.runtime.spec import Attempt

if TYPE_CHECKING:
    from airflow_stepops.images.registry.repository import ImageRepository


class JobState(str, Enum):
    """Where a job is."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)


@dataclass(frozen=True)
class JobRequest:
    """One job to launch.

    :param name: the job's name, a pure function of the attempt; at most 63 characters of ``[a-z0-9-]``.
    :param image: image reference with digest (or what the registry of the stack hands out).
    :param spec_uri: URI of the job spec, for the ``STEPOPS_SPEC`` variable.
    :param environment: non-secret variables for the container, besides ``STEPOPS_SPEC``.
    :param secrets: variable name → secret reference; delivered by reference, never by value in the request.
    :param resources: the JSON form of :class:`~airflow_stepops.options.Resources`, ``{}`` for the operator's default.
    :param artifact_root: URI of the artifact store, for services that must make it reachable (a mount).
    :param repository: the open image repository, for services that pull with our credentials.
    :param timeout: seconds the job may run, or ``None``.
    :param pending_timeout: seconds it may wait for capacity, or ``None``.
    :param labels: for people and for finding the job again.
    """

    name: str
    attempt: Attempt
    image: str
    spec_uri: str
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    artifact_root: str = ""
    repository: ImageRepository | None = None
    timeout: int | None = None
    pending_timeout: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobStatus:
    """What the service says of one job.

    :param id: the service's own id of the job (its name where the caller chooses it).
    :param detail: progress in the service's words, for people ("Downloading", "pulling image").
    :param kind: for a job that ended without success, why, as far as the service knows.
    :param reason: the service's own reason, as text.
    :param exit_code: of the container, where known (negative: killed by that signal).
    :param created_at: Unix times; ``None`` where not reached or not known.
    :param metadata: further facts for people (billable seconds, instance type …).
    :param name: the one in the job's request, where that is not the id.
    """

    id: str
    state: JobState
    detail: str = ""
    kind: EndKind | None = None
    reason: str = ""
    exit_code: int | None = None
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class LogChunk:
    """Lines of a job's log since a cursor.

    :param lines: without line ends, in order.
    :param cursor: give it to the next call; opaque text.
    :param more: whether a further call would give more right now.
    """

    lines: Sequence[str]
    cursor: str
    more: bool = False


class JobService(ABC):
    """The jobs of one account and region of one flavor."""

    #: Seconds between two looks at the jobs that are waited for.
    poll_seconds: ClassVar[float] = 15.0

    #: Least seconds between two calls of one process to the account and region.
    seconds_between_calls: ClassVar[float] = 0.5

    #: Whether the service itself ends a job that runs longer than ``timeout``; the watcher does it otherwise.
    enforces_timeout: ClassVar[bool] = False

    #: Whether the service makes no second job of a name. Where it may, the watcher stops each but the one waited for.
    unique_names: ClassVar[bool] = True

    @abstractmethod
    def submit(self, request: JobRequest) -> JobStatus:
        """Launch the job, or return the one that already has this name or attempt, whatever its state.

        Idempotent: after a crash in the middle, the same call finds the job.
        """

    @abstractmethod
    def find(self, name: str) -> JobStatus | None:
        """Return the job with this name, or ``None``.

        For who goes on with what another process has launched, maybe a moment ago: a service whose lists are behind
        looks for so long that it can be sure.
        """

    def find_now(self, name: str) -> JobStatus | None:
        """Return what :meth:`find` does, at once: a job that was launched a moment ago may be missing."""
        return self.find(name)

    @abstractmethod
    def describe(self, job_id: str) -> JobStatus:
        """Return the job."""

    @abstractmethod
    def changed(self, since: float) -> Mapping[str, JobStatus | None]:
        """Return the jobs of ours that changed since a time, by id; ``None`` for one that has to be described.

        More is allowed. Less is not, but for jobs that have not ended: a service whose lists do not tell pending from
        running leaves those out. No call is made for a single job here, and none may fail the others: one that is gone
        from the lists, or whose entry cannot be read, is ``None``, and whoever waits for it describes it.

        :param since: Unix time by the service's clock, see :meth:`now`.
        """

    def now(self) -> float:
        """Return the Unix time by the service's clock as its last answer told it, else by this machine's.

        No call is made.
        """
        return time.time()

    @abstractmethod
    def cancel(self, job_id: str) -> None:
        """Ask for the job's end and return at once. No error when it has ended or is unknown."""

    @abstractmethod
    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        """Return at most ``limit`` lines after ``cursor`` (``""``: from the start)."""

    @abstractmethod
    def console_url(self, job_id: str) -> str:
        """Return a link to the job for people, or ``""``."""

    def logs_url(self, job_id: str) -> str:
        """Return a link to the job's log for people, or ``""``."""
        return ""
