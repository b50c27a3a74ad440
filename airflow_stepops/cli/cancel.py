"""``stepops cancel``: stop the jobs of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from airflow_stepops.cli.run_arguments import client, map_index_option, run_arguments, task_argument, warn
from airflow_stepops.errors import RunNotFoundError, did_you_mean

if TYPE_CHECKING:
    from airflow_stepops.client import Run, StepRun


@click.command(
    "cancel",
    help="Stop the jobs of a run, or of one of its steps. Their tasks fail and are not tried again; steps that have "
    "not begun do so all the same unless the run is marked failed in Airflow.",
)
@run_arguments
@task_argument(required=False)
@map_index_option
@click.option("--job", metavar="NAME", help="The job of this name alone.")
def cancel(
    dag_id: str, run_id: str, task_id: str | None, map_index: int | None, job: str | None, stack: str | None
) -> int:
    """Stop jobs; the exit code is 1 when one may still run."""
    from airflow_stepops.jobs.cancel import cancel_jobs

    if task_id is None and map_index is not None:
        raise click.UsageError("--map-index needs a TASK_ID.")
    chosen = client().stack(stack)
    run = client().get_run(dag_id, run_id, chosen.name)
    warn([run])
    steps = list(run.steps)
    if task_id is not None:
        steps = run.instances(task_id) if map_index is None else [run.step(task_id, map_index)]
        if all(step.entry is None for step in steps):
            raise RunNotFoundError(f"step {task_id!r} has no job, the worker runs it: end the task in Airflow.")
    steps = _chosen(run, steps, job)
    failed = False
    done = 0
    for stopped in cancel_jobs(chosen, steps):
        click.echo(f"{stopped.step.label}: job {stopped.step.job_name}: {stopped.said}")
        failed = failed or stopped.failed
        done += 1
    if not done:
        click.echo("There is nothing to stop: all jobs have ended.")
    for step in steps:
        if step.entry is None and not step.ended:
            click.echo(f"{step.label}: runs in the worker, if it still runs: end the task in Airflow")
    return 1 if failed else 0


def _chosen(run: Run, steps: list[StepRun], job: str | None) -> list[StepRun]:
    """Return the steps whose jobs are meant; which Airflow's they are, the names do not say.

    :param job: name of the only one that is meant.
    """
    places = {(step.task_id, step.map_index) for step in steps}
    namesakes = [step for step in run.namesakes if (step.task_id, step.map_index) in places]
    if job is not None:
        attempts = [attempt for step in (*namesakes, *steps) for attempt in step.attempts]
        jobs = {attempt.job_name: replace(attempt, earlier=()) for attempt in attempts if attempt.job_name}
        if job not in jobs:
            raise RunNotFoundError(f"run {run.run_id!r} has no job {job!r}.{did_you_mean(job, jobs)}")
        return [jobs[job]]
    if namesakes:
        names = [attempt.job_name for step in (*namesakes, *steps) for attempt in step.open_jobs]
        raise RunNotFoundError(
            f"the artifact store has several runs {run.run_id!r} of {run.dag_id!r}: one was deleted and made again, or "
            f"another Airflow uses the store too. Give --job=NAME. Jobs that may run: {', '.join(names) or 'none'}."
        )
    return steps
