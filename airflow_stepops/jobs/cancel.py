"""Stopping jobs because a person asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import EndKind, StepopsError
from airflow_stepops.jobs.known_job import end
from airflow_stepops.jobs.ledger import CANCEL, Ledger
from airflow_stepops.jobs.live import LiveJobs
from airflow_stepops.jobs.outcome import Outcome
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.runs import StepRun
from airflow_stepops.stacks.models import Stack

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
    stack: Stack, steps: Sequence[StepRun], reason: str = "cancelled by 'stepops cancel'"
) -> Iterator[Cancelled]:
    """Stop the jobs of steps that have not ended, those of earlier attempts too; yield each when it is done with.

    The claim of the ledger decides, as it does for attempts that want to go on with a job: a job is never both adopted
    and stopped. Asking twice is fine.

    :param stack: whose artifact store and step operators the steps have.
    :param steps: the last attempts.
    :param reason: for the ledger.
    """
    store, live = stack.artifact_store.open(), LiveJobs(stack)
    attempts = [attempt for step in steps for attempt in step.open_jobs]
    with ThreadPoolExecutor(_AT_ONCE, "stepops-cancel") as threads:
        for done in as_completed([threads.submit(_cancel, store, live, reason, attempt) for attempt in attempts]):
            yield done.result()


def _cancel(store: ArtifactStore, live: LiveJobs, reason: str, step: StepRun) -> Cancelled:
    entry = step.entry
    assert entry is not None
    try:
        status = patiently(live.status)(entry)
        if status is None:
            return Cancelled(step, "has not been submitted yet: cancel again when it is", failed=True)
        if status.state.ended:
            return Cancelled(step, f"had ended already: {status.state.value}")
        ledger = Ledger(store, entry.attempt)
        if ledger.claim_last(CANCEL) != CANCEL:  # only a forged claim ends a chain in another way
            return Cancelled(step, "could not be stopped: its claim in the artifact store is not valid", failed=True)
        status = end(ledger, live.service(entry), status.id, Outcome(EndKind.CANCELLED, reason))
    except StepopsError as error:
        return Cancelled(step, f"could not be stopped: {error}", failed=True)
    return Cancelled(step, status.state.value)
