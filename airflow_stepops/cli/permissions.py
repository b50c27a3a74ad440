"""``stepops permissions``: the least rights that a stack needs, in the documents of its cloud."""

from __future__ import annotations

import click

from airflow_stepops.cli import place
from airflow_stepops.cli.output import print_json
from airflow_stepops.errors import StackError


@click.command("permissions", help="Print the least rights that a stack needs, as JSON: step operator → documents.")
@click.option("--stack", shell_complete=place.complete("stacks"), help="Default: the active one.")
@click.option("--cloud", help="Only for the step operators of this cloud: aws, gcp or azure.")
def permissions(stack: str | None, cloud: str | None) -> None:
    """Print permissions."""
    found = place.to_read().stack(stack)
    operators = [one for one in found.step_operators if one.cloud and cloud in (None, one.cloud)]
    if not operators:
        there = ", ".join(f"{one.name} ({one.cloud or 'no cloud'})" for one in found.step_operators) or "none"
        asked = f"of cloud {cloud!r}" if cloud else "of a cloud"
        raise StackError(f"stack {found.name!r} has no step operator {asked}. Its step operators: {there}.")
    registry, store = found.container_registry, found.artifact_store
    print_json({one.name: one.permissions(store, registry) for one in operators})
