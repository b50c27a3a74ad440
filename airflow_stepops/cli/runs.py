"""``stepops runs``: look at runs of pipelines."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from airflow_stepops.cli.main import Group
from airflow_stepops.cli.output import json_option, print_json, print_table
from airflow_stepops.cli.run_arguments import choice_options, client, local_time, run_arguments, warn

if TYPE_CHECKING:
    from airflow_stepops.client import Run, StepRun


@click.group(cls=Group, help="Look at runs of pipelines.")
def runs() -> None:
    """Commands on runs."""


@runs.command("list", help="List runs, the latest first.")
@choice_options
@json_option
def list_(dag_id: str | None, limit: int, stack: str | None, as_json: bool) -> None:
    """List runs."""
    found = client().runs(dag_id, limit, stack)
    warn(found)
    if as_json:
        print_json([_headline(run) for run in found])
        return
    print_table(
        ("DAG", "RUN", "STATE", "STEPS", "BEGAN"),
        [(run.dag_id, run.run_id, run.state, _count(run), local_time(run.began_at)) for run in found],
    )


@runs.command("describe", help="Show the steps of a run: where each ran, on which image, how long, and what it left.")
@run_arguments
@json_option
def describe(dag_id: str, run_id: str, stack: str | None, as_json: bool) -> None:
    """Show a run."""
    from airflow_stepops.cli.summary import summary

    run = client().get_run(dag_id, run_id, stack)
    warn([run])
    if as_json:
        print_json({**_headline(run), "steps": [_document(step) for step in run.steps]})
    else:
        click.echo(summary(run))


def _headline(run: Run) -> dict[str, Any]:
    states = Counter(step.state for step in run.steps)
    return {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "state": run.state,
        "began_at": run.began_at.isoformat(),
        "states": dict(states),
        "problems": list(run.problems),
    }


def _document(step: StepRun) -> dict[str, Any]:
    """Return an attempt and those before it as JSON."""
    outputs = {
        name: reference.serialize() | ({} if (value := step.outputs[name]) is reference else {"value": value})
        for name, reference in step.references.items()
    }
    return {
        "task_id": step.task_id,
        "map_index": step.map_index,
        "try_number": step.try_number,
        "state": step.state,
        "where": step.where,
        "step_operator": step.step_operator,
        "job_name": step.job_name,
        "job_id": step.job_id,
        "console_url": step.console_url,
        "image": step.image,
        "image_digest": step.image_digest,
        "uploaded_blobs": step.uploaded_blobs,
        "uploaded_bytes": step.uploaded_bytes,
        "submitted_at": _iso(step.submitted_at),
        "started_at": _iso(step.started_at),
        "ended_at": _iso(step.ended_at),
        "metadata": step.metadata,
        "error": asdict(step.error) if step.error else None,
        "outputs": outputs,
        "earlier": [_document(attempt) for attempt in step.earlier],
    }


def _count(run: Run) -> str:
    states = Counter(step.state for step in run.steps)
    if set(states) <= {"succeeded"}:
        return str(len(run.steps))
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
