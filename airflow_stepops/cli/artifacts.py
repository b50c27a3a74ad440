"""``stepops artifacts``: what steps have left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from airflow_stepops.cli import place
from airflow_stepops.cli.main import Group
from airflow_stepops.cli.output import json_option, print_json, print_table
from airflow_stepops.cli.run_arguments import client, run_arguments, warn
from airflow_stepops.errors import RunNotFoundError

if TYPE_CHECKING:
    from airflow_stepops.artifacts.reference import ArtifactReference

_CELL_CHARACTERS = 40
_LINE_CHARACTERS = 200
_JSON_LINES = 100
_COLUMNS = 12


@click.group(cls=Group, help="Look at what steps have left.")
def artifacts() -> None:
    """Commands on artifacts."""


@artifacts.command("list", help="List the outputs of a run.")
@run_arguments
@json_option
def list_(dag_id: str, run_id: str, stack: str | None, as_json: bool) -> None:
    """List outputs."""
    from airflow_stepops.cli.summary import kind, size

    run = client().get_run(dag_id, run_id, stack)
    warn([run])
    found = [(step, name, reference) for step in run.steps for name, reference in step.references.items()]
    if as_json:
        print_json(
            [
                {"task_id": step.task_id, "map_index": step.map_index, "name": name, **reference.serialize()}
                for step, name, reference in found
            ]
        )
        return
    print_table(
        ("STEP", "OUTPUT", "TYPE", "SIZE", "URI"),
        [(step.label, name, kind(reference), size(reference.size), reference.uri) for step, name, reference in found],
    )


@artifacts.command("show", help="Show what is known of a value, and a preview. Pickles are not loaded.")
@click.argument("uri")
@json_option
def show(uri: str, as_json: bool) -> None:
    """Show a value."""
    from airflow_stepops.cli.preview import preview
    from airflow_stepops.jobs.archive import RunArchive

    file = place.to_read()
    store = file.store_for(uri)
    if store is None:
        roots = ", ".join(component.root() for component in file.components("artifact_stores"))
        raise RunNotFoundError(f"{uri}: is in no artifact store of the stack file. There are: {roots}.")
    reference = RunArchive(store).reference(uri)
    look = preview(reference, store)
    if as_json:
        print_json({**reference.serialize(), "preview": look})
        return
    _print_facts(reference)
    click.echo()
    _PRINTERS[look["form"]](look)


def _print_facts(reference: ArtifactReference) -> None:
    from airflow_stepops.cli.summary import size

    click.echo(f"{reference.uri}")
    click.echo(f"type:          {reference.type}")
    click.echo(f"size:          {size(reference.size)}")
    click.echo(f"blake3:        {reference.blake3}")
    click.echo(f"materializer:  {reference.materializer}")
    for key, value in reference.metadata.items():
        click.echo(f"{f'{key}:':<14} {_cell(value, _LINE_CHARACTERS)}")


def _print_json_value(look: dict[str, Any]) -> None:
    lines = json.dumps(look["value"], indent=2, ensure_ascii=False).splitlines()
    click.echo("\n".join(_cell(line, _LINE_CHARACTERS) for line in lines[:_JSON_LINES]))
    if len(lines) > _JSON_LINES:
        click.echo(f"… {len(lines) - _JSON_LINES} more lines")


def _print_rows(look: dict[str, Any]) -> None:
    print_table(("COLUMN", "TYPE"), list(look["schema"].items()))
    click.echo(f"\n{look['rows']:,} rows; the first {len(look['head'])}:")
    columns = list(look["schema"])[:_COLUMNS]
    print_table(columns, [[_cell(row[column]) for column in columns] for row in look["head"]])
    if len(look["schema"]) > _COLUMNS:
        click.echo(f"… {len(look['schema']) - _COLUMNS} more columns")


def _print_numbers(look: dict[str, Any]) -> None:
    click.echo(f"array of {look['dtype']}, shape {tuple(look['shape'])}; the first {len(look['first'])}:")
    click.echo(", ".join(str(number) for number in look["first"]))


def _print_tensors(look: dict[str, Any]) -> None:
    rows = [(name, facts["dtype"], tuple(facts["shape"])) for name, facts in look["tensors"].items()]
    print_table(("TENSOR", "DTYPE", "SHAPE"), rows)


def _print_reason(look: dict[str, Any]) -> None:
    click.echo(f"No preview: {look['reason']}")


_PRINTERS = {
    "json": _print_json_value,
    "table": _print_rows,
    "array": _print_numbers,
    "tensors": _print_tensors,
    "none": _print_reason,
}


def _cell(value: Any, characters: int = _CELL_CHARACTERS) -> str:
    text = str(value)
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
