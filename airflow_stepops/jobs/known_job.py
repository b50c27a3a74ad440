"""What is asked of a service about one job that is known, and how that job is ended."""

from __future__ import annotations

import time

from airflow_stepops.errors import JobError, JobNotFoundError, SpecError
from airflow_stepops.jobs.ledger import Ledger, LedgerEntry
from airflow_stepops.jobs.outcome import Outcome
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.protocol import JobService, JobState, JobStatus

#: Seconds to wait for the end of an unwanted job before a new one may be launched.
_STOP_WAIT = 300.0


def forgotten(entry: LedgerEntry) -> JobStatus:
    """Return the status of a job that was submitted and that its service does not know any more."""
    return JobStatus(entry.job_id, JobState.FAILED, reason=f"the service does not know job {entry.job_name} any more")


def look_up(service: JobService, entry: LedgerEntry) -> JobStatus | None:
    """Return what a service says of the job in a ledger, ``None`` when it has no such job.

    :raises SpecError: if the job with the ledger's id is another one: whoever may write into the store may have forged
        the ledger.
    """
    if not entry.job_id:
        return service.find(entry.job_name)
    try:
        status = service.describe(entry.job_id)
    except JobNotFoundError:
        return None
    if (status.name or status.id) != entry.job_name:
        raise SpecError(
            f"ledger of {entry.attempt}: job_id={entry.job_id!r} is job {status.name or status.id!r}, not "
            f"{entry.job_name!r}."
        )
    return status


def stop(service: JobService, job_id: str) -> JobStatus:
    """Stop a job and wait until it has ended.

    :raises JobError: if it has not ended after five minutes.
    """
    patiently(service.cancel)(job_id)
    deadline = time.monotonic() + _STOP_WAIT
    while time.monotonic() < deadline:
        status = describe(service, job_id)
        if status.state.ended:
            return status
        time.sleep(service.poll_seconds)
    raise JobError(f"job {job_id} was asked to stop but has not ended after {_STOP_WAIT:.0f} s.")


def end(ledger: Ledger, service: JobService, job_id: str, outcome: Outcome) -> JobStatus:
    """Stop a job, wait until it has ended, and note why.

    :param ledger: of the attempt that waits for it, or did.
    :param outcome: noted unless the job had come to an end of its own, or its end is known already: whoever waits for
        it knows more of that.
    :raises JobError: if it has not ended after five minutes.
    """
    status = stop(service, job_id)
    entry = ledger.read()
    if status.state is JobState.STOPPED and entry is not None and not entry.ended_at:
        ledger.record(entry.ended(status, outcome))
    return status


def describe(service: JobService, job_id: str) -> JobStatus:
    """Return the status of a job, with patience for a service that fails for now.

    A job that the service no longer knows has ended without a result.
    """
    try:
        return patiently(service.describe)(job_id)
    except JobNotFoundError as error:
        return JobStatus(job_id, JobState.FAILED, reason=str(error))
