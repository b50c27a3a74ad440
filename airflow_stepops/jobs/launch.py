"""Launching the one job of an attempt: find what is there, adopt or stop it, else create."""

from __future__ import annotations

import dataclasses
import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import (
    EndKind,
    JobRefusedError,
    LaunchStoppedError,
    SpecError,
    StackError,
    StepopsError,
    TransientServiceError,
)
from airflow_stepops.jobs.known_job import end, forgotten, look_up
from airflow_stepops.jobs.ledger import CANCEL, Ledger, LedgerEntry
from airflow_stepops.jobs.outcome import Outcome
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState, JobStatus
from airflow_stepops.jobs.results import read_result
from airflow_stepops.runtime.result import SUCCEEDED
from airflow_stepops.runtime.spec import JobSpec
from airflow_stepops.stacks.components import StepOperatorComponent


@dataclass(frozen=True)
class Launch:
    """The job that an attempt waits for."""

    entry: LedgerEntry
    status: JobStatus
    submitted_at: float
    logs_url: str


@dataclass(frozen=True)
class _Found:
    """A job that is there.

    :param component: document of the step operator that it was found with: a ledger's own may be forged.
    """

    service: JobService
    status: JobStatus
    component: dict[str, Any]


class Launcher:
    """Gets the one job of an attempt, in a ``with`` block that lasts until the attempt waits for the job.

    :param store: the artifact store, which holds the ledgers.
    :param component: the step operator that a new job is given to, with the settings of the step.
    :param operator_of: returns the step operator that the document in a ledger names, see
        :meth:`~airflow_stepops.stacks.models.Stack.operator_of`.
    :param report: called with lines for the task's log.
    """

    def __init__(
        self,
        store: ArtifactStore,
        component: StepOperatorComponent,
        operator_of: Callable[[Mapping[str, Any]], StepOperatorComponent],
        report: Callable[[str], None],
    ) -> None:
        self._store = store
        self._component = component
        self._operator_of = operator_of
        self._report = report
        self._wanted = True
        self._services: dict[str, JobService] = {}
        self._current: tuple[Ledger, JobService, str] | None = None
        self._stops: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._stopper = threading.Thread(target=self._stop_when_asked, name="stepops-stop", daemon=True)

    def __enter__(self) -> Self:
        """Be ready to stop what is launched."""
        self._stopper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what was launched, if the block was interrupted, as by Airflow's timeout of a task."""
        self._stops.put(False)
        self._stopper.join()
        if error is not None and not isinstance(error, Exception):
            self._stop_current()

    def stop(self) -> None:
        """Stop the job that is being launched, if there is one, and launch none from now on.

        For the handler of a signal, which may have interrupted whoever holds a lock: it takes no lock and makes no
        call, and leaves that to a thread. The launch itself goes on until its present call is answered, and then stops
        the job that the call has made.
        """
        self._wanted = False
        self._stops.put(True)  # never blocks, and may interrupt itself

    def check_wanted(self) -> None:
        """Check that the job has not been stopped meanwhile.

        :raises LaunchStoppedError: if it has.
        """
        if not self._wanted:
            raise LaunchStoppedError("The task was killed in the worker before it waited for its job: no job goes on.")

    def launch(self, new: LedgerEntry, spec: JobSpec, request: JobRequest) -> Launch:
        """Return the attempt's job: the one that this attempt or an earlier one launched, or a new one.

        :param new: the entry to use where no attempt has left a job to go on with.
        :raises JobRefusedError: when the service will not take the request.
        :raises JobError: when the job of an earlier attempt may run and cannot be asked for.
        :raises TransientServiceError: when the service could not be reached for minutes.
        :raises SpecError: when the ledger of this or an earlier attempt is not valid.
        :raises LaunchStoppedError: after :meth:`stop`.
        """
        ledger = Ledger(self._store, new.attempt)
        entry, service, status = self._job(ledger, new, spec, request)
        submitted_at = status.created_at or entry.submitted_at or time.time()
        entry = dataclasses.replace(
            entry,
            job_id=status.id,
            console_url=service.console_url(status.id),
            state=status.state.value,
            submitted_at=submitted_at,
        )
        ledger.record(entry)
        self._check_ours(ledger, entry, service)
        return Launch(entry, status, submitted_at, service.logs_url(status.id))

    def _job(
        self, ledger: Ledger, new: LedgerEntry, spec: JobSpec, request: JobRequest
    ) -> tuple[LedgerEntry, JobService, JobStatus]:
        """Find or submit the job."""
        found = ledger.read()
        if found is not None and found.has_no_job:
            ledger.forget()
            found = None
        intended = found or self._from_earlier(ledger, new) or new
        entry = ledger.open(intended)
        there = self._job_of(entry) if entry.job_id or found is not None else None
        if there is not None:
            self._current = ledger, there.service, entry.job_name
            self._report(f"goes on with job {entry.job_name} of attempt {entry.job_attempt.try_number}")
            return dataclasses.replace(entry, component=there.component), there.service, there.status
        service = self._service(self._component)
        self._current = ledger, service, entry.job_name
        self._store.put(spec.uri, spec.to_json())
        self.check_wanted()
        try:
            status = patiently(service.submit)(request)
        except JobRefusedError as error:
            # With wrong settings the service may never answer, so later attempts must not have to look for a job that
            # there is not. Where an earlier run of this attempt may have launched one, they must.
            if entry is intended and found is None:
                ledger.record(entry.failed(error.kind, str(error)))
            raise
        return new, service, status

    def _job_of(self, entry: LedgerEntry) -> _Found | None:
        """Return the job that an entry tells of; ``None`` when it has to be submitted."""
        return self._known_job(entry) if entry.job_id else self._find_intended(entry)

    def _check_ours(self, ledger: Ledger, entry: LedgerEntry, service: JobService) -> None:
        """Check that the job is still to be waited for, now that the ledger tells of it.

        :raises LaunchStoppedError: if the task was killed in this worker.
        :raises JobRefusedError: if this worker was thought to be dead and a later attempt has begun, or if a person
            has asked for the end of the job.
        """
        if not self._wanted and ledger.claim(CANCEL):
            service.cancel(entry.job_id)
        self.check_wanted()
        claimant = ledger.claimant()
        if claimant == CANCEL:
            reason = f"nobody waits for job {entry.job_name} any more: it is stopped"
            self._report(reason)
            end(ledger, service, entry.job_id, Outcome(EndKind.CANCELLED, reason))
            raise JobRefusedError(reason, EndKind.CANCELLED)
        if claimant:
            raise JobRefusedError(f"{claimant} has begun, and goes on with the job", EndKind.CANCELLED)

    def _from_earlier(self, ledger: Ledger, new: LedgerEntry) -> LedgerEntry | None:
        """Return an entry that adopts the job of an earlier attempt; stop every job that is not adopted.

        A task that a person has cleared begins again.

        :raises JobRefusedError: if a later attempt has begun.
        """
        adopted: LedgerEntry | None = None
        decided: set[str] = set()
        for entry in ledger.earlier():
            # An attempt that went on with a job has the later word on it than the one that launched it.
            if entry.job_name in decided:
                continue
            decided.add(entry.job_name)
            if entry.has_ended and not _is_unheard(entry, new):
                continue
            there = self._job_of_earlier(entry)
            if there is None:
                continue
            status = there.status
            wanted = adopted is None and _is_same_work(entry, new) and self._is_usable(entry, status)
            # What has ended cannot be stopped any more: its result is taken whoever has asked for its end, too late.
            if wanted and (status.state.ended or self._claim(entry, new, new.claim)):
                adopted = dataclasses.replace(
                    entry,
                    attempt=new.attempt,
                    component=there.component,
                    job_id=status.id,
                    dag_version=new.dag_version,
                )
            elif not status.state.ended and self._claim(entry, new, CANCEL):
                self._report(
                    f"stops job {entry.job_name} of attempt {entry.attempt.try_number}: it is not wanted any more"
                )
                outcome = Outcome(EndKind.CANCELLED, f"attempt {new.attempt.try_number} did not want it any more")
                end(Ledger(self._store, entry.attempt), there.service, status.id, outcome)
        return adopted

    def _claim(self, entry: LedgerEntry, new: LedgerEntry, owner: str) -> bool:
        """Claim the job of an earlier attempt; return ``False`` if somebody has asked for its end.

        :raises JobRefusedError: if a later attempt has claimed it.
        """
        claimant = Ledger(self._store, entry.attempt).claim_last(owner, before=new.attempt.try_number)
        if claimant not in (owner, CANCEL):
            raise JobRefusedError(f"{claimant} has begun, and goes on with job {entry.job_name}", EndKind.CANCELLED)
        return claimant == owner

    def _job_of_earlier(self, entry: LedgerEntry) -> _Found | None:
        """Return the job of an earlier attempt, ``None`` when it has none.

        :raises JobError: if it has one that cannot be asked for.
        """
        if entry.job_id:
            return self._known_job(entry)
        there = self._find_intended(entry)
        if there is None:
            # Its worker may be about to submit it. From now on it stops what it submits, if that is not here yet.
            Ledger(self._store, entry.attempt).claim(CANCEL)
            there = self._find_intended(entry)
        return there

    def _known_job(self, entry: LedgerEntry) -> _Found:
        """Return a job that was submitted.

        :raises JobError: if it cannot be asked for.
        """
        try:
            operator = self._operator_of(entry.component)
            service = self._service(operator)
            status = patiently(look_up)(service, entry) or forgotten(entry)
            return _Found(service, status, operator.document())
        except (TransientServiceError, SpecError):
            raise
        except StepopsError as error:
            number = entry.attempt.try_number
            text = (
                f"job {entry.job_name} of attempt {number} may still run and cannot be asked for: {error} Make that "
                f"work again, or stop the job {entry.job_id!r} yourself and delete attempt-{number}/job.json of this "
                f"task in the artifact store."
            )
            kind = error.kind if isinstance(error, JobRefusedError) else EndKind.INVALID_REQUEST
            raise JobRefusedError(text, kind) from error

    def _find_intended(self, entry: LedgerEntry) -> _Found | None:
        """Look for a job that may never have been submitted, at the service that it was meant for.

        Its settings may be what kept it from being submitted, so that they do not work need not be put right first.
        """
        try:
            operator = self._operator_of(entry.component)
        except StackError as error:
            self._report(_not_looked_for(entry, error))
            return None
        try:
            service = self._service(operator)
            status = patiently(service.find)(entry.job_name)
        except StepopsError as error:
            if isinstance(error, TransientServiceError) and operator.account_key() == self._component.account_key():
                raise
            self._report(_not_looked_for(entry, error))
            return None
        return None if status is None else _Found(service, status, operator.document())

    def _service(self, operator: StepOperatorComponent) -> JobService:
        """Return the service of a step operator: the same one each time, since it may remember what it was asked."""
        key = json.dumps(operator.document(), sort_keys=True)
        if key not in self._services:
            self._services[key] = operator.connect()
        return self._services[key]

    def _is_usable(self, entry: LedgerEntry, status: JobStatus) -> bool:
        """Whether there is something to go on with: a job that goes on, or one that has left a valid result."""
        if status.state in (JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED):
            return True
        result, _ = read_result(self._store, entry.directory, entry.job_attempt)
        return result is not None and result.status == SUCCEEDED

    def _stop_when_asked(self) -> None:
        if self._stops.get():
            self._stop_current()

    def _stop_current(self) -> None:
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


def _not_looked_for(entry: LedgerEntry, why: StepopsError) -> str:
    return f"job {entry.job_name} may never have been submitted, and is not looked for: {why}"


def _is_same_work(entry: LedgerEntry, new: LedgerEntry) -> bool:
    return (entry.work, entry.last_try) == (new.work, new.last_try)


def _is_unheard(entry: LedgerEntry, new: LedgerEntry) -> bool:
    """Whether a job ended well and Airflow tries again all the same: the worker died before it could tell.

    A task that was cleared after its success runs again.
    """
    return not entry.end_kind and entry.last_try == new.last_try
