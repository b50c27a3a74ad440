"""Custom jobs of Vertex AI in one project and region. A job's id is the number that Vertex gives it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, ClassVar
from urllib.parse import quote

from airflow_stepops.clouds.gcp.connection import Account, account
from airflow_stepops.clouds.gcp.failures import RefusedCallError, UnclearCallError
from airflow_stepops.clouds.gcp.limits import check_request
from airflow_stepops.clouds.gcp.logs import LogReader, Pace
from airflow_stepops.clouds.gcp.request import create_request
from airflow_stepops.clouds.gcp.states import ENDED, job_status
from airflow_stepops.clouds.gcp.step_operator import LABEL, VertexStepOperator
from airflow_stepops.clouds.sweeps import read_entry
from airflow_stepops.errors import JobError, JobNotFoundError, TransientServiceError
from airflow_stepops.jobs.clock import ServiceClock
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState, JobStatus, LogChunk

_CONSOLE = "https://console.cloud.google.com"
_PAGE = 100
#: All of a job but its spec, which may be long.
_SUMMARY = "name,state,createTime,startTime,endTime,error,labels"
_OURS = f"labels.{LABEL}:*"
_GOING_ON = " AND ".join([_OURS, *(f'state!="JOB_STATE_{state}"' for state in ENDED)])
#: The first sweep gets also jobs that were made so many seconds earlier, and have ended since.
_FIRST_LOOK_BACK = 8 * 86400.0
#: Who reads a log again within this part of the time between two looks does not merely follow the job.
_USUAL_PART = 0.9
_READ_LATELY = 3600.0
#: Seconds before each further look for a job that may have been made a moment ago: Google's lists may be behind.
LOOK_AGAIN_AFTER: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 15.0)
#: Of several jobs of an attempt the first in this order is gone on with.
_BEST_FIRST = (
    JobState.SUCCEEDED,
    JobState.RUNNING,
    JobState.PENDING,
    JobState.FAILED,
    JobState.STOPPING,
    JobState.STOPPED,
)
#: Seconds for which a thread may be held up by the quota of logs.
_LONGEST_WAIT = 5.0

_log = logging.getLogger(__name__)


class VertexJobService(JobService):
    """The custom jobs of a step operator's project and region."""

    poll_seconds: ClassVar[float] = 15.0
    # 600 requests a minute for the whole project and region.
    seconds_between_calls: ClassVar[float] = 0.5
    enforces_timeout: ClassVar[bool] = True
    unique_names: ClassVar[bool] = False

    def __init__(self, settings: VertexStepOperator) -> None:
        self._settings = settings
        self._clock = ServiceClock()
        self._look_back = _FIRST_LOOK_BACK
        #: Jobs that a sweep or a describe has told to go on, and no sweep to have ended.
        self._going_on: set[str] = set()
        #: Names of which a create may have made a job.
        self._unclear: set[str] = set()
        #: Names that nobody else is making a job of: it is made here, or was looked for long enough.
        self._settled: set[str] = set()
        self._readers: dict[str, LogReader] = {}
        self._read_at: dict[str, float] = {}

    def submit(self, request: JobRequest) -> JobStatus:
        """Create the job, or return the one that this attempt has.

        Vertex AI makes a new job for each request. So the jobs of an attempt carry its name as a label. After a create
        whose answer was lost, the next call looks for the job until the list must show it. Of launchers that had all
        seen none, each takes the oldest one that it sees, and stops its own; the watcher stops what is left.
        """
        name = request.name
        self._settled.add(name)
        there = self._named(name) or (self._named_in_time(name) if name in self._unclear else {})
        self._unclear.discard(name)
        if there:
            return self._best(there)
        job = create_request(request, self._settings, self._account.project)
        check_request(job)
        try:
            created = job_status(self._call("POST", json=job))
        except UnclearCallError:
            self._unclear.add(name)
            raise
        return self._agreed(created, name)

    def find(self, name: str) -> JobStatus | None:
        """Return the job that has this name as its label.

        Whoever launched it may have died a moment ago, and the list may not show it yet. So the first time it is looked
        for until the list must show it.
        """
        there = self._named(name)
        if not there and name not in self._settled:
            there = self._named_in_time(name)
            self._settled.add(name)
        return self._best(there) if there else None

    def find_now(self, name: str) -> JobStatus | None:
        """Return the job that has this name as its label, if the list shows it already."""
        there = self._named(name)
        return self._best(there) if there else None

    def describe(self, job_id: str) -> JobStatus:
        """Return the job."""
        try:
            if job_id.isdigit():
                status = job_status(self._call("GET", f"/{job_id}"))
                if not status.state.ended:
                    self._going_on.add(job_id)
                return status
        except RefusedCallError as error:
            if not error.is_not_found:
                raise
        raise JobNotFoundError(f"Vertex AI has no custom job {job_id!r} in {self._settings.region}")

    def changed(self, since: float) -> Mapping[str, JobStatus | None]:
        """Return the jobs that go on, those made since then, and, as ``None``, those that went on and do no more.

        Vertex AI cannot be asked for the jobs that have ended since then.
        """
        went_on = set(self._going_on)
        moment = datetime.fromtimestamp(since - self._look_back, UTC)
        listed: dict[str, JobStatus | None] = {}
        for condition in (f'{_OURS} AND create_time>="{moment:%Y-%m-%dT%H:%M:%S.%fZ}"', _GOING_ON):
            listed |= {_number(job): read_entry(job_status, job) for job in self._jobs(condition)}
        self._going_on = {job_id for job_id, status in listed.items() if status and not status.state.ended}
        self._look_back = 0.0
        return {**dict.fromkeys(went_on), **listed}

    def now(self) -> float:
        """Return the time by Google's clock."""
        return self._clock.now()

    def cancel(self, job_id: str) -> None:
        """Ask Vertex AI to stop the job. It may still succeed."""
        if not job_id.isdigit():
            return
        try:
            self._call("POST", f"/{job_id}:cancel", json={})
        except RefusedCallError as error:
            if not error.is_not_found and not self.describe(job_id).state.ended:
                raise

    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        """Return lines after a cursor; those of other machines than the first name their own.

        Of very many jobs at once the quota of Cloud Logging lets each be read now and then only: who comes at the usual
        pace takes what is left of it, and who comes sooner, as at a job's end, goes first.
        """
        now = time.monotonic()
        soon = now - self._read_at.get(job_id, now) < self.poll_seconds * _USUAL_PART
        self._read_at = {job: at for job, at in self._read_at.items() if now - at < _READ_LATELY} | {job_id: now}
        reader = self._readers.pop(job_id, None)
        if reader is None or reader.cursor != cursor:
            reader = LogReader(job_id, cursor)
        try:
            chunk = reader.read(limit, partial(self._read_entries, _LONGEST_WAIT if soon else 0.0))
        except TransientServiceError:
            self._readers[job_id] = reader
            raise
        if chunk.more:
            self._readers[job_id] = reader
        return chunk

    def console_url(self, job_id: str) -> str:
        """Return the job's page."""
        page = f"{_CONSOLE}/agent-platform/locations/{self._settings.region}/training/{job_id}"
        return f"{page}?project={self._account.project}"

    def logs_url(self, job_id: str) -> str:
        """Return the page with the job's log entries."""
        query = quote(f'resource.type="ml_job"\nresource.labels.job_id="{job_id}"', safe="")
        return f"{_CONSOLE}/logs/query;query={query}?project={self._account.project}"

    @property
    def _account(self) -> Account:
        return account(self._settings.connection, self._settings.project)

    def _agreed(self, created: JobStatus, name: str) -> JobStatus:
        """Return the job that this launcher has made, or one that another made a moment before."""
        try:
            there = self._named(name)
        except JobError as error:
            _log.warning("[stepops] cannot check whether job %s is the only one of its attempt: %s", created.id, error)
            return created
        oldest = min({**there, created.id: created}.values(), key=_age)
        if oldest.id != created.id:
            _log.warning("[stepops] job %s is stopped: job %s of the same attempt is older", created.id, oldest.id)
            self.cancel(created.id)
        return oldest

    def _best(self, jobs: Mapping[str, JobStatus]) -> JobStatus:
        """Return the one of an attempt's jobs to go on with."""
        # States in lists may be old.
        current = map(self.describe, jobs) if len(jobs) > 1 else jobs.values()
        return min(current, key=lambda status: (_BEST_FIRST.index(status.state), _age(status)))

    def _named(self, name: str) -> dict[str, JobStatus]:
        return {_number(job): job_status(job) for job in self._jobs(f'labels.{LABEL}="{name}"')}

    def _named_in_time(self, name: str) -> dict[str, JobStatus]:
        """Return the jobs of a name once the list shows any, nothing if it does not for so long that there are none."""
        for seconds in LOOK_AGAIN_AFTER:
            time.sleep(seconds)
            if there := self._named(name):
                return there
        return {}

    def _jobs(self, condition: str) -> Iterator[Mapping[str, Any]]:
        asked: dict[str, Any] = {"filter": condition, "pageSize": _PAGE, "readMask": _SUMMARY}
        while True:
            answer = self._call("GET", params=asked)
            yield from answer.get("customJobs", ())
            if not answer.get("nextPageToken"):
                return
            asked["pageToken"] = answer["nextPageToken"]

    def _call(self, method: str, path: str = "", **request: Any) -> Any:
        to = self._account
        parent = f"projects/{to.project}/locations/{self._settings.region}"
        url = f"{to.endpoint('aiplatform', self._settings.region)}/v1/{parent}/customJobs{path}"
        return to.call(method, url, clock=self._clock, **request)

    def _read_entries(self, longest_wait: float, asked: dict[str, Any]) -> Mapping[str, Any]:
        to = self._account
        _pace(to.project).wait(longest_wait)
        body = {"resourceNames": [f"projects/{to.project}"], **asked}
        answer: Mapping[str, Any] = to.call("POST", f"{to.endpoint('logging')}/v2/entries:list", json=body)
        return answer


@lru_cache(maxsize=64)
def _pace(project: str) -> Pace:  # noqa: ARG001 - one for each project
    return Pace()


def _number(job: Mapping[str, Any]) -> str:
    """Return a job's id."""
    return str(job["name"]).rpartition("/")[2]


def _age(status: JobStatus) -> tuple[float, int]:
    """Return what orders jobs by their age in the same way for everybody."""
    return status.created_at or 0.0, int(status.id)
