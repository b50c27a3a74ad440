"""A job service in memory, for tests of what stands above the protocol: it counts calls and fails on demand."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Mapping

from airflow_stepops.errors import JobNotFoundError, JobRefusedError, TransientServiceError
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState, JobStatus, LogChunk


class InMemoryService(JobService):
    """Jobs are what a test says they are. Calls are counted by name, sweeps and describes alike.

    :ivar broken: call and job → what the call of this job raises; a job whose ``entry`` is broken is one that sweeps
        cannot read.
    :ivar asked: the jobs of the describes so far.
    :ivar ahead: seconds by which the service's clock is ahead of this machine's.
    """

    poll_seconds = 0.01
    seconds_between_calls = 0.0

    def __init__(self) -> None:
        self.jobs: dict[str, JobStatus] = {}
        self.changed_at: dict[str, float] = {}
        self.lines: dict[str, list[str]] = {}
        self.calls: Counter[str] = Counter()
        self.failures: dict[str, int] = {}
        self.broken: dict[tuple[str, str], Exception] = {}
        self.asked: Counter[str] = Counter()
        self.ahead = 0.0
        self.requests: list[JobRequest] = []
        self.refusal: JobRefusedError | None = None
        self.lists_running = True
        self._creating = threading.Lock()

    def set(self, job_id: str, state: JobState, **facts: object) -> JobStatus:
        status = self.jobs.get(job_id) or JobStatus(job_id, state, created_at=self.now())
        self.jobs[job_id] = dataclasses.replace(status, state=state, **facts)  # type: ignore[arg-type]
        self.changed_at[job_id] = self.now()
        return self.jobs[job_id]

    def submit(self, request: JobRequest) -> JobStatus:
        self._count("submit")
        if self.refusal is not None:
            raise self.refusal
        with self._creating:  # of two jobs of the same name, a service makes one
            if request.name not in self.jobs:
                self.requests.append(request)
                self.set(request.name, JobState.PENDING)
        self._fail("submit answer")
        return self.jobs[request.name]

    def find(self, name: str) -> JobStatus | None:
        self._count("find")
        return self.jobs.get(name)

    def describe(self, job_id: str) -> JobStatus:
        self._count("describe")
        self.asked[job_id] += 1
        self._break("describe", job_id)
        if job_id not in self.jobs:
            raise JobNotFoundError(job_id)
        return self.jobs[job_id]

    def changed(self, since: float) -> Mapping[str, JobStatus | None]:
        self._count("changed")
        changed = {job_id: self.jobs[job_id] for job_id, at in self.changed_at.items() if at >= since}
        told = {job_id: status for job_id, status in changed.items() if self.lists_running or status.state.ended}
        return {job_id: None if ("entry", job_id) in self.broken else status for job_id, status in told.items()}

    def now(self) -> float:
        return time.time() + self.ahead

    def cancel(self, job_id: str) -> None:
        self._count("cancel")
        self._break("cancel", job_id)
        if job_id in self.jobs and not self.jobs[job_id].state.ended:
            self.set(job_id, JobState.STOPPED)

    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        self._count("logs")
        start = int(cursor or 0)
        lines = self.lines.get(job_id, [])[start : start + limit]
        return LogChunk(lines, str(start + len(lines)), more=start + len(lines) < len(self.lines.get(job_id, [])))

    def console_url(self, job_id: str) -> str:
        return f"https://console.example.com/{job_id}"

    def fail(self, call: str, times: int) -> None:
        """Let the next calls of this name fail as a throttled service does."""
        self.failures[call] = times

    def refuse(self, refusal: JobRefusedError | None) -> None:
        """Refuse every request from now on, or none any more."""
        self.refusal = refusal

    def _count(self, call: str) -> None:
        self.calls[call] += 1
        self._fail(call)

    def _break(self, call: str, job_id: str) -> None:
        if (call, job_id) in self.broken:
            raise self.broken[call, job_id]

    def _fail(self, call: str) -> None:
        if self.failures.get(call, 0) > 0:
            self.failures[call] -= 1
            raise TransientServiceError(f"{call}: throttled")
