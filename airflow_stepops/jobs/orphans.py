"""Jobs that nobody waits for: their task was ended or its run deleted while no triggerer was alive to see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import StepopsError
from airflow_stepops.jobs.archive import RunArchive
from airflow_stepops.jobs.cancel import Cancelled, cancel_jobs
from airflow_stepops.jobs.live import LiveJobs
from airflow_stepops.jobs.runs import StepRun

#: States of a task instance that has come to its end, and so waits for no job. In any other state it waits, or its next
#: try goes on with the job or stops it.
OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})

#: No service lets a job run longer: SageMaker stops it after 28 days.
_LONGEST_SECONDS = 30 * 24 * 3600.0

_REASON = "nobody waited for it: its task had ended"

#: Returns the state of a step's task instance as Airflow has it; ``None`` also when Airflow does not know it.
TaskState = Callable[[StepRun], str | None]


def find_orphans(store: ArtifactStore, state: TaskState, now: float) -> list[StepRun]:
    """Return the steps whose jobs may still run and whose task instances have ended.

    A task instance that this Airflow does not know is left alone: it may be another one's that shares the store. A job
    that was never submitted, since the worker died before, is none.

    :param now: Unix time.
    :raises ArtifactError: if the store cannot be listed.
    """
    runs = RunArchive(store).runs(written_since=now - _LONGEST_SECONDS)
    unfinished = [step for run in runs for step in run.steps if any(_may_run(attempt) for attempt in step.attempts)]
    live = LiveJobs()
    return [step for step in unfinished if state(step) in OVER and any(_runs(live, one) for one in step.attempts)]


def stop_orphans(store: ArtifactStore, orphans: list[StepRun]) -> Iterator[Cancelled]:
    """Stop their jobs; yield each when it is done with. One that has ended meanwhile is left as it is."""
    return cancel_jobs(store, orphans, _REASON)


def _may_run(attempt: StepRun) -> bool:
    return bool(attempt.job_name) and not attempt.ended


def _runs(live: LiveJobs, attempt: StepRun) -> bool:
    """Ask the service; where it cannot be asked, stopping the job says why."""
    if attempt.entry is None or not _may_run(attempt):
        return False
    try:
        status = live.status(attempt.entry)
    except StepopsError:
        return True
    return status is not None and not status.state.ended
