"""``stepops build``: the images of all steps of DAG files, made before any run, in the person's CI for example."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_stepops.cli import place
from airflow_stepops.cli.dag_files import bundle_of, read_dags, step_arguments
from airflow_stepops.cli.local_airflow import output_into
from airflow_stepops.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from airflow_stepops.images.builder import FinishedImage, PlannedImage


@click.command("build", help="Build and push the images of the steps of DAG files.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--stack", help="Stack for steps that name none; default: the active one.")
@click.option("--check", is_flag=True, help="Say what would be built, and build nothing.")
@json_option
def build(files: Sequence[Path], stack: str | None, check: bool, as_json: bool) -> None:
    """Build images."""
    found = []
    for path in files:
        file = place.dag_file(path)
        place.use(file, stack)
        with output_into(Path(os.devnull)):  # Airflow logs on standard output
            dags = read_dags(file)
        found += [_outcome(step, check, file, quiet=as_json) for dag in dags.values() for step in _steps(dag)]
    if as_json:
        print_json(found)
        return
    rows = [(row["dag"], row["step"], row["operator"], row["tag"] or row["image"], _told(row)) for row in found]
    print_table(("DAG", "STEP", "STEP OPERATOR", "IMAGE", ""), rows)


@dataclass(frozen=True)
class _BuiltStep:
    """What a step's task says of its image."""

    dag_id: str
    task_id: str
    function: Callable[..., Any]
    stack: str | None
    step_operator: str | bool
    image: dict[str, Any]
    settings: dict[str, Any]

    def planned(self, file: Path, quiet: bool) -> tuple[str, PlannedImage | FinishedImage]:
        """Return the name of the step operator, and the image."""
        from airflow_stepops.operators.image import step_image
        from airflow_stepops.operators.source import code_root, source_file
        from airflow_stepops.stacks.file import load

        source = source_file(self.function)
        stack = load(near=source.parent).stack(self.stack)
        component = stack.operator_named(self.step_operator).overridden(self.settings)
        root = code_root(source, bundle_of(file))
        report = (lambda line: None) if quiet else (lambda line: click.echo(f"{self.task_id}: {line}", err=True))
        return component.name, step_image(self.function, self.image, stack, component, root, report)


def _steps(dag: DAG) -> Iterator[_BuiltStep]:
    """Yield the steps of a DAG that run on a step operator, mapped ones too."""
    for task_id, arguments in step_arguments(dag).items():
        if arguments.get("step_operator"):
            yield _BuiltStep(
                dag.dag_id,
                task_id,
                arguments["python_callable"],
                arguments.get("stack"),
                arguments["step_operator"],
                arguments.get("image") or {},
                arguments.get("settings") or {},
            )


def _outcome(step: _BuiltStep, check: bool, file: Path, quiet: bool) -> dict[str, Any]:
    from airflow_stepops.images.builder import FinishedImage, PlannedImage

    operator, image = step.planned(file, quiet)
    row: dict[str, Any] = {"dag": step.dag_id, "step": step.task_id, "operator": operator}
    if check:
        tag = image.plan.tag if isinstance(image, PlannedImage) else ""
        uri = image.uri if isinstance(image, FinishedImage) else ""
        return {**row, "image": uri, "tag": tag, "there": image.is_there(), "built": False}
    built = image.ensure()
    row |= {"image": built.reference, "tag": built.tag, "there": True, "built": not built.reused}
    return {**row, "uploaded_blobs": built.uploaded_blobs, "uploaded_bytes": built.uploaded_bytes}


def _told(row: dict[str, Any]) -> str:
    if row["built"]:
        return f"built: uploaded {row['uploaded_blobs']} blobs, {row['uploaded_bytes'] / 10**6:,.2f} MB"
    return "is there" if row["there"] else "would be built"
