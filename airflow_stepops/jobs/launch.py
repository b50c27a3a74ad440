"""Launching the one job of an attempt: find what is there, adopt or stop it, else create."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import EndKind, JobError, JobNotFoundError, JobRefusedError
from airflow_stepops.jobs.ledger import CANCEL, Ledger, LedgerEntry
from airflow_stepops.jobs.outcome import Outcome
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState, JobStatus
from airflow_stepops.runtime.spec import JobSpec

#: Seconds to wait for the end of an unwanted job before a new one may be launched.
_STOP_WAIT = 300.0


@dataclass(frozen=True)
class Launch:
    """The job that an attempt waits for."""

    entry: LedgerEntry
    status: JobStatus
    submitted_at: float
    logs_url: str


class Launcher:
    """Gets the one job of an attempt.

    :param store: the artifact store, which holds the ledgers.
    :param connect: makes the service of a step operator from its document.
    :param report: called with lines for the task's log.
    """

    def __init__(
        self,
        store: ArtifactStore,
        connect: Callable[[Mapping[str, Any]], JobService],
        report: Callable[[str], None],
    ) -> None:
        self._store = store
        self._connect = connect
        self._report = report

    def launch(
        self,
        spec: JobSpec,
        request: JobRequest,
        component: dict[str, Any],
        *,
        first_try: int,
        uploaded_blobs: int = 0,
        uploaded_bytes: int = 0,
    ) -> Launch:
        """Return the attempt's job: the one that this attempt or an earlier one launched, or a new one.

        :param component: document of the step operator.
        :param first_try: number of the first attempt since the task was last cleared.
        :param uploaded_blobs: how many blobs of the image were uploaded for it, for the ledger.
        :raises JobRefusedError: when the service will not take the request.
        :raises TransientServiceError: when the service could not be reached for minutes.
        :raises SpecError: when the ledger of this or an earlier attempt is not valid.
        """
        entry = LedgerEntry(
            spec.attempt,
            spec.directory,
            spec.attempt,
            hashlib.sha256(f"{spec.digest()} {request.image}".encode()).hexdigest(),
            component,
            request.name,
            image=request.image,
            uploaded_blobs=uploaded_blobs,
            uploaded_bytes=uploaded_bytes,
        )
        ledger = Ledger(self._store, spec.attempt)
        entry, service, status = self._job(ledger, entry, spec, request, first_try)
        submitted_at = status.created_at or entry.submitted_at or time.time()
        entry = dataclasses.replace(
            entry,
            job_id=status.id,
            console_url=service.console_url(status.id),
            state=status.state.value,
            submitted_at=submitted_at,
        )
        ledger.record(entry)
        return Launch(entry, status, submitted_at, service.logs_url(status.id))

    def _job(
        self, ledger: Ledger, new: LedgerEntry, spec: JobSpec, request: JobRequest, first_try: int
    ) -> tuple[LedgerEntry, JobService, JobStatus]:
        """Find or submit the job.

        :param new: the entry to use where no attempt has left one to go on with.
        """
        found = ledger.read()
        if found is not None and found.has_no_job:
            ledger.forget()
            found = None
        intended = found or self._from_earlier(ledger, new.spec_digest, spec, first_try) or new
        entry = ledger.open(intended)
        service = self._connect(entry.component)
        if entry.job_id:
            self._report(f"goes on with job {entry.job_name} of attempt {entry.job_attempt.try_number}")
            return entry, service, describe(service, entry.job_id)
        self._store.put(spec.uri, spec.to_json())
        try:
            return entry, service, patiently(service.submit)(request)
        except JobRefusedError as error:
            # With wrong settings the service may never answer, so later attempts must not have to look for a job that
            # there is not. Where an earlier run of this attempt may have launched one, they must.
            if entry is intended:
                ledger.record(entry.failed(error.kind, str(error)))
            raise

    def _from_earlier(self, ledger: Ledger, digest: str, spec: JobSpec, first_try: int) -> LedgerEntry | None:
        """Return an entry that adopts the job of an earlier attempt; stop every job that is not adopted."""
        adopted: LedgerEntry | None = None
        decided: set[str] = set()
        for earlier in ledger.earlier():
            entry = earlier.read()
            # An attempt that went on with a job has the later word on it than the one that launched it.
            if entry is None or entry.job_name in decided:
                continue
            decided.add(entry.job_name)
            if entry.state and JobState(entry.state).ended and not _is_unheard(entry, first_try):
                continue
            service = self._connect(entry.component)
            status = patiently(service.find)(entry.job_name)
            if status is None:
                continue
            usable = status.state in (JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED)
            owner = f"attempt-{spec.attempt.try_number}"
            if adopted is None and usable and entry.spec_digest == digest and earlier.claim(owner):
                adopted = dataclasses.replace(entry, attempt=spec.attempt, job_id=status.id)
            elif not status.state.ended:
                earlier.claim(CANCEL)
                self._report(
                    f"stops job {entry.job_name} of attempt {entry.attempt.try_number}: it is not wanted any more"
                )
                outcome = Outcome(EndKind.CANCELLED, f"attempt {spec.attempt.try_number} did not want it any more")
                earlier.record(entry.ended(stop(service, status.id), outcome))
        return adopted


def _is_unheard(entry: LedgerEntry, first_try: int) -> bool:
    """Whether a job ended well and Airflow tries again all the same: the worker died before it could tell.

    A task that was cleared after its success starts to count its tries anew: that one runs again.
    """
    return not entry.end_kind and entry.attempt.try_number >= first_try


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


def describe(service: JobService, job_id: str) -> JobStatus:
    """Return the status of a job, with patience for a service that fails for now.

    A job that the service no longer knows has ended without a result.
    """
    try:
        return patiently(service.describe)(job_id)
    except JobNotFoundError as error:
        return JobStatus(job_id, JobState.FAILED, reason=str(error))
