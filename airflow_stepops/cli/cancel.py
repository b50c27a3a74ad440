"""``stepops cancel``: stop the jobs of a run."""

from __future__ import annotations

import click

from airflow_stepops.cli.run_arguments import client, map_index_option, run_arguments, task_argument, warn
from airflow_stepops.errors import RunNotFoundError


@click.command(
    "cancel",
    help="Stop the jobs of a run, or of one of its steps. Their tasks fail and are not tried again; steps that have "
    "not begun do so all the same unless the run is marked failed in Airflow.",
)
@run_arguments
@task_argument(required=False)
@map_index_option
def cancel(dag_id: str, run_id: str, task_id: str | None, map_index: int | None, stack: str | None) -> int:
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
    failed = False
    done = 0
    for job in cancel_jobs(chosen.artifact_store.open(), steps):
        click.echo(f"{job.step.label}: job {job.step.job_name}: {job.said}")
        failed = failed or job.failed
        done += 1
    if not done:
        click.echo("There is nothing to stop: all jobs have ended.")
    for step in steps:
        if step.entry is None and not step.ended:
            click.echo(f"{step.label}: runs in the worker, if it still runs: end the task in Airflow")
    return 1 if failed else 0
