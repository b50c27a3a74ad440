"""What the services say now of jobs that the ledger knows."""

from __future__ import annotations

import functools
import json

from airflow_stepops.errors import JobNotFoundError
from airflow_stepops.jobs.ledger import LedgerEntry
from airflow_stepops.jobs.protocol import JobService, JobState, JobStatus
from airflow_stepops.stacks.components import StepOperatorComponent
from airflow_stepops.stacks.flavors import component_from_document


def service_of(entry: LedgerEntry) -> JobService:
    """Connect to the service that a job was given to; one connection for all jobs of a step operator.

    :raises StackError: when this installation does not know the flavor.
    """
    return _connect(json.dumps(entry.component, sort_keys=True))


def live_status(entry: LedgerEntry) -> JobStatus | None:
    """Return what the service says of a job; ``None`` when it has not been given the job yet.

    A job that the service no longer knows has ended without a result.

    :raises TransientServiceError: when the service cannot be reached.
    """
    service = service_of(entry)
    if not entry.job_id:
        return service.find(entry.job_name)
    try:
        return service.describe(entry.job_id)
    except JobNotFoundError as error:
        return JobStatus(entry.job_id, JobState.FAILED, reason=str(error))


@functools.lru_cache(maxsize=64)
def _connect(component: str) -> JobService:
    return component_from_document(StepOperatorComponent, json.loads(component)).connect()
