"""SageMaker jobs of one account and region. A job's id is its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from airflow_stepops.clouds.aws.connection import client, passing
from airflow_stepops.clouds.aws.console import console_url, escaped
from airflow_stepops.clouds.aws.limits import check_request
from airflow_stepops.clouds.aws.logs import read_logs
from airflow_stepops.clouds.aws.request import create_request
from airflow_stepops.clouds.aws.states import processing_status, training_status
from airflow_stepops.clouds.aws.step_operator import SageMakerStepOperator
from airflow_stepops.clouds.sweeps import read_entry
from airflow_stepops.errors import JobNotFoundError
from airflow_stepops.jobs.clock import ServiceClock
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobStatus, LogChunk


@dataclass(frozen=True)
class _Kind:
    """How the API names one kind of job.

    :param word: in the names of operations: ``create_<word>_job``.
    :param name: field of a job's name.
    :param summaries: field of the summaries in a list.
    :param told_running: whether a summary tells a job that runs from one that waits.
    """

    word: str
    name: str
    summaries: str
    log_group: str
    console: str
    status: Callable[[Mapping[str, Any]], JobStatus]
    told_running: bool


_KINDS = {
    "training": _Kind(
        "training",
        "TrainingJobName",
        "TrainingJobSummaries",
        "/aws/sagemaker/TrainingJobs",
        "jobs",
        training_status,
        told_running=True,
    ),
    "processing": _Kind(
        "processing",
        "ProcessingJobName",
        "ProcessingJobSummaries",
        "/aws/sagemaker/ProcessingJobs",
        "processing-jobs",
        processing_status,
        told_running=False,
    ),
}


class SageMakerJobService(JobService):
    """The training or the processing jobs of a step operator's account and region."""

    poll_seconds: ClassVar[float] = 15.0
    # ListTrainingJobs has a quota of 2 requests a second that cannot be raised.
    seconds_between_calls: ClassVar[float] = 0.5
    enforces_timeout: ClassVar[bool] = True

    def __init__(self, settings: SageMakerStepOperator) -> None:
        self._settings = settings
        self._kind = _KINDS[settings.job_type]
        self._clock = ServiceClock()

    def submit(self, request: JobRequest) -> JobStatus:
        """Create the job, or return the one of this name."""
        with passing():
            found = self.find(request.name)
            if found is not None:
                return found
            document = create_request(request, self._settings, self._role())
            check_request(self._model(f"Create{self._kind.word.title()}Job"), document)
            # Somebody may have created it meanwhile, or an answer was lost.
            with suppress(self._client.exceptions.ResourceInUse):
                self._call("create", **document)
            return self.describe(request.name)

    def find(self, name: str) -> JobStatus | None:
        """Return the job with this name."""
        try:
            return self.describe(name)
        except JobNotFoundError:
            return None

    def describe(self, job_id: str) -> JobStatus:
        """Return the job."""
        from botocore.exceptions import ClientError

        with passing():
            try:
                return self._kind.status(self._call("describe", **{self._kind.name: job_id}))
            except ClientError as error:
                if _is_unknown(error):
                    raise JobNotFoundError(f"SageMaker has no {self._kind.word} job {job_id!r}") from error
                raise

    def changed(self, since: float) -> Mapping[str, JobStatus | None]:
        """Return the jobs of the account that changed; those of others are of no interest to who asks."""
        kind = self._kind
        with passing():
            found = {summary[kind.name]: read_entry(kind.status, summary) for summary in self._summaries(since)}
        return {name: status for name, status in found.items() if kind.told_running or not status or status.state.ended}

    def now(self) -> float:
        """Return the time by SageMaker's clock."""
        return self._clock.now()

    def cancel(self, job_id: str) -> None:
        """Ask SageMaker to stop the job: SIGTERM, and SIGKILL after 120 seconds."""
        from botocore.exceptions import ClientError

        with passing():
            try:
                self._call("stop", **{self._kind.name: job_id})
            except ClientError as error:
                status = self.find(job_id)
                if status is not None and not status.state.ended:
                    raise
                if status is None and not _is_unknown(error):
                    raise

    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        """Return lines after a cursor; of several machines each line names its own."""
        with passing():
            return read_logs(self._client_of("logs"), self._kind.log_group, job_id, cursor, limit)

    def console_url(self, job_id: str) -> str:
        """Return the job's page."""
        return console_url(self._client.meta.region_name, f"sagemaker/home#/{self._kind.console}/{job_id}")

    def logs_url(self, job_id: str) -> str:
        """Return the page of the log group with the job's streams."""
        streams = f"log-groups/log-group/{escaped(self._kind.log_group)}$3FlogStreamNameFilter$3D{job_id}"
        return console_url(self._client.meta.region_name, f"cloudwatch/home#logsV2:{streams}")

    @property
    def _client(self) -> Any:
        return self._client_of("sagemaker")

    def _client_of(self, service: str) -> Any:
        return client(service, self._settings.connection, self._settings.region)

    def _call(self, verb: str, **arguments: Any) -> Any:
        return self._timed(getattr(self._client, f"{verb}_{self._kind.word}_job")(**arguments))

    def _timed(self, answer: Any) -> Any:
        """Return an answer after a look at its time."""
        self._clock.read(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
        return answer

    def _model(self, operation: str) -> Any:
        return self._client.meta.service_model.operation_model(operation)

    def _role(self) -> str:
        """Return the ARN of the execution role."""
        role = self._settings.role
        if role.startswith("arn:"):
            return role
        return str(self._client_of("iam").get_role(RoleName=role)["Role"]["Arn"])

    def _summaries(self, since: float) -> Iterator[Mapping[str, Any]]:
        after = datetime.fromtimestamp(since, UTC)
        pages = self._client.get_paginator(f"list_{self._kind.word}_jobs").paginate(LastModifiedTimeAfter=after)
        for page in pages:
            yield from self._timed(page)[self._kind.summaries]


def _is_unknown(error: Any) -> bool:
    """Whether an error says that there is no such job: training jobs say it in a ValidationException."""
    code, text = error.response["Error"]["Code"], error.response["Error"].get("Message", "").lower()
    missing = "could not find" in text or "not found" in text
    return code == "ResourceNotFound" or (code == "ValidationException" and missing)
