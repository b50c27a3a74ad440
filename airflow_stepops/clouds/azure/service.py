"""Command jobs of Azure ML in one workspace. A job's id is its name, which is the attempt's."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import quote

import httpx

from airflow_stepops.clouds.azure.connection import ANSWER_SECONDS, Account, account
from airflow_stepops.clouds.azure.environments import NAME, environment_version, version_of
from airflow_stepops.clouds.azure.failures import RefusedCallError
from airflow_stepops.clouds.azure.limits import check_request
from airflow_stepops.clouds.azure.logs import LogReader
from airflow_stepops.clouds.azure.request import create_request
from airflow_stepops.clouds.azure.states import SILENT, job_status, lost
from airflow_stepops.clouds.azure.step_operator import TAG, AzureMLStepOperator
from airflow_stepops.clouds.sweeps import read_entry
from airflow_stepops.errors import JobNotFoundError
from airflow_stepops.jobs.clock import ServiceClock
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState, JobStatus, LogChunk

_VERSION = "2025-12-01"
_RUN_HISTORY_VERSION = "v1.0"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")
#: Seconds after which a job that Azure ML hears nothing of is given up.
_SILENCE = 15 * 60.0
#: The first sweep gets also jobs that were made so many seconds earlier, and have ended since.
_FIRST_LOOK_BACK = 8 * 86400.0
#: So many pages of the list are looked at; jobs that are further back are described one by one.
_MOST_PAGES = 20


class AzureMLJobService(JobService):
    """The command jobs of a step operator's workspace."""

    poll_seconds: ClassVar[float] = 15.0
    # Azure Resource Manager lets a caller read 25 times a second in a subscription.
    seconds_between_calls: ClassVar[float] = 0.5
    enforces_timeout: ClassVar[bool] = True

    def __init__(self, settings: AzureMLStepOperator) -> None:
        self._settings = settings
        self._clock = ServiceClock()
        self._look_back = _FIRST_LOOK_BACK
        #: Jobs that a sweep or a describe has told to go on, and no sweep to have ended.
        self._going_on: set[str] = set()
        self._silent_since: dict[str, float] = {}
        self._files = httpx.Client(timeout=ANSWER_SECONDS)

    def submit(self, request: JobRequest) -> JobStatus:
        """Create the job, or return the one that has its name.

        A request that is made twice makes one job: what differs of the second one is refused, since a job cannot be
        changed.
        """
        found = self.find(request.name)
        if found is not None:
            return found
        environment = f"environments/{NAME}/versions/{version_of(request.image)}"
        job = create_request(request, self._settings, self._workspace, f"{self._workspace}/{environment}")
        check_request(job)
        self._make_once(environment, environment_version(request.image))
        try:
            return job_status(self._call("PUT", f"jobs/{request.name}", json=job))
        except RefusedCallError:
            found = self.find(request.name)
            if found is None:
                raise
            return found

    def find(self, name: str) -> JobStatus | None:
        """Return the job with this name."""
        try:
            return self.describe(name)
        except JobNotFoundError:
            return None

    def describe(self, job_id: str) -> JobStatus:
        """Return the job."""
        job = self._job(job_id)
        status = job_status(job)
        if status.state is not JobState.PENDING:
            status = job_status(job, self._details(job_id))
        status = self._unless_lost(job, status)
        if not status.state.ended:
            self._going_on.add(job_id)
        return status

    def changed(self, since: float) -> Mapping[str, JobStatus | None]:
        """Return the jobs made since then, and those that went on at the last call; of both more than that.

        Azure ML lists the newest jobs first, and cannot be asked for the jobs that have ended since then.
        """
        missing = set(self._going_on)
        oldest = since - self._look_back
        found: dict[str, JobStatus | None] = {}
        for number, page in enumerate(self._pages(), 1):
            statuses = {str(job["name"]): read_entry(self._listed, job) for job in page}
            found |= statuses
            missing -= set(statuses)
            is_past = all(status and (status.created_at or 0.0) < oldest for status in statuses.values())
            if (is_past and not missing) or number == _MOST_PAGES:
                break
        self._going_on = {job_id for job_id, status in found.items() if status and not status.state.ended}
        self._look_back = 0.0
        return {**dict.fromkeys(missing), **found}

    def now(self) -> float:
        """Return the time by Azure's clock."""
        return self._clock.now()

    def cancel(self, job_id: str) -> None:
        """Ask Azure ML to stop the job, which takes a while."""
        if not _NAME.fullmatch(job_id):
            return
        try:
            self._call("POST", f"jobs/{job_id}/cancel")
        except RefusedCallError as error:
            if not error.is_not_found and not job_status(self._job(job_id)).state.ended:
                raise

    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        """Return lines after a cursor; those of other processes than the first name theirs."""
        return LogReader(lambda: self._details(job_id), self._files, cursor).read(limit)

    def console_url(self, job_id: str) -> str:
        """Return the job's page in the studio."""
        return f"{self._account.cloud.machine_learning}/runs/{job_id}?wsid={quote(self._workspace)}"

    def logs_url(self, job_id: str) -> str:
        """Return the part of the job's page with its logs."""
        return f"{self.console_url(job_id)}#outputsAndLogs"

    @property
    def _account(self) -> Account:
        return account(self._settings.connection)

    @property
    def _workspace(self) -> str:
        """Resource id of the workspace."""
        subscription = self._settings.subscription_id or self._account.subscription
        group, name = self._settings.resource_group, self._settings.workspace_name
        provider = "providers/Microsoft.MachineLearningServices/workspaces"
        return f"/subscriptions/{subscription}/resourceGroups/{group}/{provider}/{name}"

    @cached_property
    def _run_history(self) -> str:
        """URL of the runs of the workspace."""
        discovery = self._call("GET")["properties"]["discoveryUrl"]
        apis = self._get(discovery)
        return f"{apis['api'].rstrip('/')}/history/{_RUN_HISTORY_VERSION}{self._workspace}/runs"

    def _job(self, job_id: str) -> Mapping[str, Any]:
        try:
            if _NAME.fullmatch(job_id):
                job: Mapping[str, Any] = self._call("GET", f"jobs/{job_id}")
                return job
        except RefusedCallError as error:
            if not error.is_not_found:
                raise
        raise JobNotFoundError(f"Azure ML has no job {job_id!r} in the workspace {self._settings.workspace_name}")

    def _details(self, job_id: str) -> Mapping[str, Any]:
        """Return the details of a run, ``{}`` for one that is not there yet."""
        params = {"api-version": _RUN_HISTORY_VERSION}
        try:
            details: Mapping[str, Any] = self._get(f"{self._run_history}/{job_id}/details", params)
        except RefusedCallError as error:
            if not error.is_not_found:
                raise
            return {}
        return details

    def _listed(self, job: Mapping[str, Any]) -> JobStatus:
        return self._unless_lost(job, job_status(job))

    def _pages(self) -> Iterator[list[Mapping[str, Any]]]:
        answer = self._call("GET", "jobs", params={"tag": TAG, "listViewType": "All", "jobType": "Command"})
        while True:
            yield answer.get("value", [])
            if not answer.get("nextLink"):
                return
            answer = self._get(answer["nextLink"])

    def _make_once(self, path: str, document: Mapping[str, Any]) -> None:
        """Make something that is the same for everybody who makes it."""
        try:
            self._call("GET", path)
            return
        except RefusedCallError as error:
            if not error.is_not_found:
                raise
        try:
            self._call("PUT", path, json=document)
        except RefusedCallError as error:
            try:
                self._call("GET", path)
            except RefusedCallError:
                raise error from None

    def _unless_lost(self, job: Mapping[str, Any], status: JobStatus) -> JobStatus:
        """Return the status; of a job that has not responded for long that it is lost, and see to it that it ends."""
        if job["properties"].get("status") != SILENT:
            self._silent_since.pop(status.id, None)
            return status
        now = time.monotonic()
        if now - self._silent_since.setdefault(status.id, now) < _SILENCE:
            return status
        self.cancel(status.id)
        return lost(status, _SILENCE, self.now())

    def _call(self, method: str, path: str = "", **request: Any) -> Any:
        to = self._account
        url = f"{to.cloud.resource_manager}{self._workspace}{f'/{path}' if path else ''}"
        params = {"api-version": _VERSION, **request.pop("params", {})}
        return to.call(method, url, scope=to.cloud.scope, params=params, clock=self._clock, **request)

    def _get(self, url: str, params: Mapping[str, str] | None = None) -> Any:
        """Return what is at an address that Azure ML itself gave."""
        to = self._account
        return to.call("GET", url, scope=to.cloud.scope, params=params)
