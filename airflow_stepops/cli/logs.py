"""``stepops logs``: the log of a step's job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from airflow_stepops import settings
from airflow_stepops.cli.run_arguments import client, map_index_option, run_arguments, task_argument
from airflow_stepops.errors import RunNotFoundError

if TYPE_CHECKING:
    from airflow_stepops.client import StepRun


@click.command("logs", help="Print the log of a step's job.")
@run_arguments
@task_argument(required=True)
@map_index_option
@click.option("--try", "try_number", type=click.IntRange(min=1), metavar="N", help="Which attempt; default: the last.")
@click.option("-f", "--follow", is_flag=True, help="Wait for further lines until the job has ended.")
def logs(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int | None,
    try_number: int | None,
    follow: bool,
    stack: str | None,
) -> None:
    """Print a log."""
    from airflow_stepops.jobs.live import LiveJobs
    from airflow_stepops.jobs.logs import log_lines

    step = _attempt(client().get_run(dag_id, run_id, stack).step(task_id, map_index), try_number)
    if step.entry is None:
        raise RunNotFoundError(f"step {step.label!r} ran in the worker, it has no job: {_airflow_log(step)}")
    if step.entry.has_no_job:
        raise RunNotFoundError(
            f"attempt {step.try_number} of step {step.label!r} ended before it had a job: {step.entry.end_reason}"
        )
    live = LiveJobs(client().stack(stack))
    job_id = step.job_id
    if not job_id:
        status = live.status(step.entry)
        if status is None:
            raise RunNotFoundError(f"job {step.job_name} has not been submitted yet: try again when it is.")
        job_id = status.id
    for line in log_lines(live.service(step.entry), job_id, follow=follow):
        click.echo(line)


def _attempt(step: StepRun, try_number: int | None) -> StepRun:
    if try_number is None:
        return step
    found = {attempt.try_number: attempt for attempt in step.attempts}
    if try_number not in found:
        has = ", ".join(map(str, found))
        raise RunNotFoundError(f"step {step.label!r} has no attempt {try_number}. It has: {has}.")
    return found[try_number]


def _airflow_log(step: StepRun) -> str:
    """Say where Airflow keeps the log of a task."""
    folder = settings.expanded(settings.airflow("logging", "base_log_folder") or settings.airflow_home() / "logs")
    parts = [f"dag_id={step.dag_id}", f"run_id={step.run_id}", f"task_id={step.task_id}"]
    parts += [f"map_index={step.map_index}"] if step.map_index >= 0 else []
    file = folder.joinpath(*parts, f"attempt={step.try_number}.log")
    return f"its log is the task's, {file}." if file.is_file() else "its log is the task's, in Airflow."
