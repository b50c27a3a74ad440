"""What commands that look at runs have in common: their arguments, and what they say of documents they cannot read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from airflow_stepops.cli import place

if TYPE_CHECKING:
    from airflow_stepops.client import Client, Run

F = TypeVar("F", bound=Callable[..., Any])


def client() -> Client:
    """Return a client of the stack file that commands read."""
    from airflow_stepops.client import Client

    return Client()


def stack_option(function: F) -> F:
    """Add ``--stack``."""
    return click.option(
        "--stack",
        metavar="NAME",
        shell_complete=_complete_stacks,
        help="Whose artifact store to look into; default: the active stack.",
    )(function)


def run_arguments(function: F) -> F:
    """Add ``DAG_ID`` and ``RUN_ID``, and ``--stack``."""
    function = stack_option(function)
    function = click.argument("run_id", shell_complete=_complete_runs)(function)
    return click.argument("dag_id", shell_complete=_complete_dags)(function)


def task_argument(*, required: bool) -> Callable[[F], F]:
    """Return a decorator that adds ``TASK_ID``."""
    return click.argument("task_id", required=required, shell_complete=_complete_tasks)


def map_index_option(function: F) -> F:
    """Add ``--map-index``."""
    return click.option(
        "--map-index", type=click.IntRange(min=0), metavar="N", help="Which instance of a mapped step."
    )(function)


def choice_options(function: F) -> F:
    """Add ``--dag``, ``--limit`` and ``--stack``, which choose among all runs."""
    from airflow_stepops.client import RUNS

    function = stack_option(function)
    limit = click.option(
        "--limit", type=click.IntRange(min=1), default=RUNS, show_default=True, help="So many runs, the latest."
    )
    return click.option("--dag", "dag_id", metavar="DAG_ID", shell_complete=_complete_dags, help="Of one DAG alone.")(
        limit(function)
    )


def warn(runs: Iterable[Run]) -> None:
    """Say on standard error what could not be read."""
    for run in runs:
        for problem in run.problems:
            click.echo(f"warning: {problem}", err=True)


def local_time(moment: datetime | None) -> str:
    """Return a time for people of this machine."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}" if moment else ""


def _complete_stacks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in place.to_read().names("stacks") if name.startswith(incomplete)]


def _complete_dags(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    found = dict.fromkeys(run.dag_id for run in client().runs(stack=ctx.params.get("stack")))
    return [dag_id for dag_id in found if dag_id.startswith(incomplete)]


def _complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    runs = client().runs(ctx.params.get("dag_id"), stack=ctx.params.get("stack"))
    return [run.run_id for run in runs if run.run_id.startswith(incomplete)]


def _complete_tasks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    run = client().get_run(ctx.params["dag_id"], ctx.params["run_id"], ctx.params.get("stack"))
    found = dict.fromkeys(step.task_id for step in run.steps)
    return [task_id for task_id in found if task_id.startswith(incomplete)]
