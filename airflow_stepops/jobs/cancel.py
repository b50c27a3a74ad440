"""Stopping jobs because a person asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import EndKind, StepopsError
from airflow_stepops.jobs.launch import end
from airflow_stepops.jobs.ledger import CANCEL, Ledger, LedgerEntry
from airflow_stepops.jobs.live import LiveJobs
from airflow_stepops.jobs.outcome import Outcome
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.runs import StepRun

#: Jobs that are stopped at the same time: each may take the seconds that its step has to clean up.
_AT_ONCE = 16


@dataclass(frozen=True)
class Cancelled:
    """What became of one job.

    :param step: the attempt whose job it is.
    :param said: for people, such as ``stopped``.
    :param failed: whether it may still run.
    """

    step: StepRun
    said: str
    failed: bool = False


def cancel_jobs(
    store: ArtifactStore, steps: Sequence[StepRun], reason: str = "cancelled by 'stepops cancel'"
) -> Iterator[Cancelled]:
    """Stop the jobs of steps that have not ended, those of earlier attempts too; yield each when it is done with.

    The claim of the ledger decides, as it does for attempts that want to go on with a job: a job is never both adopted
    and stopped. Asking twice is fine.

    :param steps: the last attempts.
    :param reason: for the ledger.
    """
    jobs: dict[str, tuple[StepRun, LedgerEntry]] = {}
    for step in steps:
        for attempt in reversed(step.attempts):
            # An attempt that went on with a job has the later word on it than the one that launched it.
            if attempt.entry is not None and attempt.job_name and attempt.job_name not in jobs:
                jobs[attempt.job_name] = attempt, attempt.entry
    unfinished = [(step, entry) for step, entry in jobs.values() if not step.ended]
    live = LiveJobs()
    with ThreadPoolExecutor(_AT_ONCE, "stepops-cancel") as threads:
        for done in as_completed([threads.submit(_cancel, store, live, reason, *job) for job in unfinished]):
            yield done.result()


def _cancel(store: ArtifactStore, live: LiveJobs, reason: str, step: StepRun, entry: LedgerEntry) -> Cancelled:
    try:
        status = patiently(live.status)(entry)
        if status is None:
            return Cancelled(step, "has not been submitted yet: cancel again when it is", failed=True)
        if status.state.ended:
            return Cancelled(step, f"had ended already: {status.state.value}")
        ledger = Ledger(store, entry.attempt)
        if not ledger.claim(CANCEL):
            return Cancelled(step, "a later attempt goes on with it: cancel again to stop that", failed=True)
        status = end(ledger, live.service(entry), status.id, Outcome(EndKind.CANCELLED, reason))
    except StepopsError as error:
        return Cancelled(step, f"could not be stopped: {error}", failed=True)
    return Cancelled(step, status.state.value)
