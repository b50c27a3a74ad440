"""``stepops jobs``: look at the jobs of all runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from airflow_stepops.cli.main import Group
from airflow_stepops.cli.output import json_option, print_json, print_table
from airflow_stepops.cli.run_arguments import choice_options, client, local_time, warn
from airflow_stepops.errors import StepopsError

if TYPE_CHECKING:
    from airflow_stepops.client import StepRun
    from airflow_stepops.jobs.live import LiveJobs

_AT_ONCE = 16


@dataclass(frozen=True)
class _Job:
    step: StepRun
    state: str
    problem: str = ""


@click.group(cls=Group, help="Look at the jobs of runs.")
def jobs() -> None:
    """Commands on jobs."""


@jobs.command("list", help="List the jobs of the latest runs; the service is asked how those are that have not ended.")
@click.option("--running", is_flag=True, help="Only those that have not ended.")
@choice_options
@json_option
def list_(running: bool, dag_id: str | None, limit: int, stack: str | None, as_json: bool) -> None:
    """List jobs."""
    from airflow_stepops.jobs.live import LiveJobs

    runs = client().runs(dag_id, limit, stack)
    warn(runs)
    # An attempt that went on with a job comes after the one that launched it, in whose place it is shown.
    found_steps = (step for run in runs for step in (*run.namesakes, *run.steps))
    steps = {attempt.job_name: attempt for step in found_steps for attempt in step.attempts}
    live = LiveJobs(client().stack(stack))
    with ThreadPoolExecutor(_AT_ONCE, "stepops-jobs") as threads:
        found = list(threads.map(lambda step: _look(live, step), [step for name, step in steps.items() if name]))
    for job in found:
        if job.problem:
            click.echo(f"warning: {job.step.job_name}: {job.problem}", err=True)
    if running:
        found = [job for job in found if job.state not in ("succeeded", "failed", "stopped")]
    if as_json:
        print_json([_document(job) for job in found])
        return
    print_table(
        ("JOB", "STATE", "STEP OPERATOR", "DAG", "RUN", "STEP", "TRY", "SUBMITTED"),
        [
            (
                job.step.job_name,
                job.state,
                job.step.step_operator,
                job.step.dag_id,
                job.step.run_id,
                job.step.label,
                job.step.try_number,
                local_time(job.step.submitted_at),
            )
            for job in found
        ],
    )


def _look(live: LiveJobs, step: StepRun) -> _Job:
    """Return a job with its state now."""
    if step.entry is None or step.entry.has_ended:
        return _Job(step, step.state)
    try:
        status = live.status(step.entry)
    except StepopsError as error:
        return _Job(step, step.state, f"{step.where} cannot be asked: {error}")
    return _Job(step, status.state.value if status else step.state)


def _document(job: _Job) -> dict[str, object]:
    step = job.step
    return {
        "job_name": step.job_name,
        "job_id": step.job_id,
        "state": job.state,
        "flavor": step.where,
        "step_operator": step.step_operator,
        "dag_id": step.dag_id,
        "run_id": step.run_id,
        "task_id": step.task_id,
        "map_index": step.map_index,
        "try_number": step.try_number,
        "submitted_at": step.submitted_at.isoformat() if step.submitted_at else None,
        "console_url": step.console_url,
    }
