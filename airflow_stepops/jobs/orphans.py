"""Jobs that nobody waits for: their task was ended or its run deleted while no triggerer was alive to see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from airflow_stepops.errors import StepopsError
from airflow_stepops.jobs.archive import RunArchive
from airflow_stepops.jobs.cancel import Cancelled, cancel_jobs
from airflow_stepops.jobs.live import LiveJobs
from airflow_stepops.jobs.runs import StepRun
from airflow_stepops.stacks.models import Stack

#: States of a task instance that has come to its end, and so waits for no job. In any other state it waits, or its next
#: try goes on with the job or stops it.
OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})

#: A job ends within this time after its result was written. Clocks may differ by minutes.
_RESULT_SECONDS = 24 * 3600.0

_REASON = "nobody waited for it: its task had ended"

#: Returns whether this Airflow knows that a task instance has ended or was deleted; ``False`` also for one that may be
#: another Airflow's.
IsOver = Callable[[StepRun], bool]


def find_orphans(stack: Stack, is_over: IsOver, now: float) -> list[StepRun]:
    """Return the steps whose jobs may still run and whose task instances have ended.

    A task instance that this Airflow does not know is left alone: it may be another one's that shares the store. A job
    that was never submitted, since the worker died before, is none.

    :param now: Unix time.
    :raises ArtifactError: if the store cannot be listed.
    """
    runs = RunArchive(stack.artifact_store.open()).unfinished(now - _RESULT_SECONDS)
    steps = [step for run in runs for step in (*run.steps, *run.namesakes)]
    live = LiveJobs(stack)
    return [
        step for step in steps if step.open_jobs and is_over(step) and any(_runs(live, one) for one in step.open_jobs)
    ]


def stop_orphans(stack: Stack, orphans: list[StepRun]) -> Iterator[Cancelled]:
    """Stop their jobs; yield each when it is done with. One that has ended meanwhile is left as it is."""
    return cancel_jobs(stack, orphans, _REASON)


def _runs(live: LiveJobs, attempt: StepRun) -> bool:
    """Ask the service; where it cannot be asked, stopping the job says why."""
    assert attempt.entry is not None
    try:
        status = live.status(attempt.entry)
    except StepopsError:
        return True
    return status is not None and not status.state.ended
