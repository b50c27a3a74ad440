"""Launching the one job of an attempt: find what is there, adopt or stop it, else create."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import (
    EndKind,
    JobError,
    JobNotFoundError,
    JobRefusedError,
    LaunchStoppedError,
    StepopsError,
)
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
        self._wanted = True
        self._current: tuple[Ledger, JobService, str] | None = None

    def stop(self) -> None:
        """Stop the job that is being launched, if there is one, and launch none from now on.

        For a signal's handler: the launch itself goes on until its present call is answered, and then stops the job
        that the call has made.
        """
        self._wanted = False
        if self._current is None:
            return
        ledger, service, name = self._current
        try:
            status = service.find(name)
            # Without the claim the next try may go on with a job that the service has not yet begun to end.
            if ledger.claim(CANCEL) and status is not None and not status.state.ended:
                service.cancel(status.id)
        except StepopsError as error:
            self._report(f"cannot stop job {name}: {error}")

    def check_wanted(self) -> None:
        """Check that the job has not been stopped meanwhile.

        :raises LaunchStoppedError: if it has.
        """
        if not self._wanted:
            raise LaunchStoppedError("The task was killed in the worker before it waited for its job: no job goes on.")

    def launch(
        self,
        spec: JobSpec,
        request: JobRequest,
        component: dict[str, Any],
        *,
        last_try: int = 0,
        dag_version: str = "",
        uploaded_blobs: int = 0,
        uploaded_bytes: int = 0,
    ) -> Launch:
        """Return the attempt's job: the one that this attempt or an earlier one launched, or a new one.

        :param component: document of the step operator.
        :param last_try: see :class:`~airflow_stepops.jobs.ledger.LedgerEntry`, as for ``dag_version``.
        :param uploaded_blobs: how many blobs of the image were uploaded for it, for the ledger.
        :raises JobRefusedError: when the service will not take the request.
        :raises TransientServiceError: when the service could not be reached for minutes.
        :raises SpecError: when the ledger of this or an earlier attempt is not valid.
        :raises LaunchStoppedError: after :meth:`stop`.
        """
        entry = LedgerEntry(
            spec.attempt,
            spec.directory,
            spec.attempt,
            hashlib.sha256(f"{spec.digest()} {request.image}".encode()).hexdigest(),
            component,
            request.name,
            last_try=last_try,
            dag_version=dag_version,
            image=request.image,
            uploaded_blobs=uploaded_blobs,
            uploaded_bytes=uploaded_bytes,
        )
        ledger = Ledger(self._store, spec.attempt)
        entry, service, status = self._job(ledger, entry, spec, request)
        submitted_at = status.created_at or entry.submitted_at or time.time()
        entry = dataclasses.replace(
            entry,
            job_id=status.id,
            console_url=service.console_url(status.id),
            state=status.state.value,
            submitted_at=submitted_at,
        )
        ledger.record(entry)
        if not self._wanted and ledger.claim(CANCEL):
            service.cancel(status.id)
        self.check_wanted()
        return Launch(entry, status, submitted_at, service.logs_url(status.id))

    def _job(
        self, ledger: Ledger, new: LedgerEntry, spec: JobSpec, request: JobRequest
    ) -> tuple[LedgerEntry, JobService, JobStatus]:
        """Find or submit the job.

        :param new: the entry to use where no attempt has left one to go on with.
        """
        found = ledger.read()
        if found is not None and found.has_no_job:
            ledger.forget()
            found = None
        intended = found or self._from_earlier(ledger, new) or new
        entry = ledger.open(intended)
        service = self._connect(entry.component)
        self._current = ledger, service, entry.job_name
        if entry.job_id:
            self._report(f"goes on with job {entry.job_name} of attempt {entry.job_attempt.try_number}")
            return entry, service, describe(service, entry.job_id)
        self._store.put(spec.uri, spec.to_json())
        self.check_wanted()
        try:
            status = patiently(service.submit)(request)
        except JobRefusedError as error:
            # With wrong settings the service may never answer, so later attempts must not have to look for a job that
            # there is not. Where an earlier run of this attempt may have launched one, they must.
            if entry is intended:
                ledger.record(entry.failed(error.kind, str(error)))
            raise
        if self._wanted and ledger.claimant() == CANCEL:
            self._give_up(ledger, entry, service, status)
        return entry, service, status

    def _give_up(self, ledger: Ledger, entry: LedgerEntry, service: JobService, status: JobStatus) -> NoReturn:
        """Stop what was submitted too late: this worker was thought to be dead, and the next attempt has begun."""
        reason = f"a later attempt began before job {entry.job_name} was submitted: the job is stopped"
        self._report(reason)
        entry = dataclasses.replace(entry, job_id=status.id)
        ledger.record(entry.ended(stop(service, status.id), Outcome(EndKind.CANCELLED, reason)))
        raise JobRefusedError(reason, EndKind.CANCELLED)

    def _from_earlier(self, ledger: Ledger, new: LedgerEntry) -> LedgerEntry | None:
        """Return an entry that adopts the job of an earlier attempt; stop every job that is not adopted.

        A task that a person has cleared begins anew.
        """
        number = new.attempt.try_number
        adopted: LedgerEntry | None = None
        decided: set[str] = set()
        for earlier in ledger.earlier():
            entry = earlier.read()
            # An attempt that went on with a job has the later word on it than the one that launched it.
            if entry is None or entry.job_name in decided:
                continue
            decided.add(entry.job_name)
            if entry.state and JobState(entry.state).ended and not _is_unheard(entry, new):
                continue
            service = self._connect(entry.component)
            status = patiently(service.find)(entry.job_name)
            if status is None and not entry.job_id:
                # Its worker may be about to submit it. From now on it stops what it submits, if that is not here yet.
                earlier.claim(CANCEL)
                status = patiently(service.find)(entry.job_name)
            if status is None:
                continue
            usable = status.state in (JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED)
            same = (entry.spec_digest, entry.last_try) == (new.spec_digest, new.last_try)
            if adopted is None and usable and same and earlier.claim(f"attempt-{number}"):
                adopted = dataclasses.replace(entry, attempt=new.attempt, job_id=status.id)
            elif not status.state.ended:
                earlier.claim(CANCEL)
                self._report(
                    f"stops job {entry.job_name} of attempt {entry.attempt.try_number}: it is not wanted any more"
                )
                outcome = Outcome(EndKind.CANCELLED, f"attempt {number} did not want it any more")
                end(earlier, service, status.id, outcome)
        return adopted


def _is_unheard(entry: LedgerEntry, new: LedgerEntry) -> bool:
    """Whether a job ended well and Airflow tries again all the same: the worker died before it could tell.

    A task that was cleared after its success runs again.
    """
    return not entry.end_kind and entry.last_try == new.last_try


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
