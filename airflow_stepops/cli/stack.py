"""``stepops stack``: register, choose, look at, copy, export and import stacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from airflow_stepops.cli import place
from airflow_stepops.cli.main import Group
from airflow_stepops.cli.output import json_option, print_json, print_table
from airflow_stepops.errors import did_you_mean
from airflow_stepops.stacks.document import PARTS


@click.group(cls=Group, help="Register, choose and look at stacks.")
def stack() -> None:
    """Commands on stacks."""


def _parts(required: bool) -> Callable[[Any], Any]:
    """Return a decorator that adds the options for a stack's components."""

    def part(short: str, name: str, section: str, **more: Any) -> Any:
        return click.option(short, name, metavar="NAME", shell_complete=place.complete(section), **more)

    def add(function: Any) -> Any:
        many = "Several times for several; the first is the default."
        for option in (
            part("-i", "--image-builder", "image_builders", help="Default: oci."),
            part("-s", "--step-operator", "step_operators", multiple=True, help=many),
            part("-c", "--container-registry", "container_registries", required=required),
            part("-a", "--artifact-store", "artifact_stores", required=required),
        ):
            function = option(function)
        return function

    return add


def _given(parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that were given, in the order of the file."""
    given = {**parts, "step_operators": list(parts["step_operator"])}
    return {key: given[key] for key in PARTS if given[key]}


def _check_orchestrator(ctx: click.Context, param: click.Parameter, value: str) -> str:
    # People who come from ZenML name theirs; whatever it is called, it has to be Airflow here.
    if value not in ("airflow", "default") and "orchestrator" not in value:
        near = did_you_mean(value, ["airflow"])
        raise click.BadParameter(f"{value!r}: the orchestrator is always airflow.{near} Leave the option out.")
    return value


@stack.command("register", help="Register a stack: NAME -a STORE -c REGISTRY -s OPERATOR [-s …].")
@click.argument("name")
@click.option("-o", "--orchestrator", default="airflow", callback=_check_orchestrator, expose_value=False, hidden=True)
@_parts(required=True)
@click.option("--set", "activate", is_flag=True, help="Make it the active stack.")
def register(name: str, activate: bool, **parts: Any) -> None:
    """Register a stack."""
    from airflow_stepops.stacks.edit import activate_stack, add_stack

    path = place.to_change()
    add_stack(path, name, _given(parts))
    place.say_changed(f"Registered stack {name!r}", path)
    if activate:
        activate_stack(path, name)
        place.say_changed(f"Stack {name!r} is active", path)


@stack.command("update", help="Replace components of a stack; -s replaces all step operators.")
@click.argument("name", shell_complete=place.complete("stacks"))
@_parts(required=False)
def update(name: str, **parts: Any) -> None:
    """Change a stack."""
    from airflow_stepops.stacks.edit import change_stack

    path = place.to_change()
    change_stack(path, name, _given(parts))
    place.say_changed(f"Updated stack {name!r}", path)


@stack.command("set", help="Make a stack the one for pipelines that name none.")
@click.argument("name", shell_complete=place.complete("stacks"))
def set_(name: str) -> None:
    """Choose the active stack."""
    from airflow_stepops.stacks.edit import activate_stack

    path = place.to_change()
    activate_stack(path, name)
    place.say_changed(f"Stack {name!r} is active", path)


@stack.command("get", help="Show the name of the active stack.")
@json_option
def get(as_json: bool) -> None:
    """Show the active stack."""
    active = place.to_read().active
    if as_json:
        print_json({"active": active})
    else:
        click.echo(active)


@stack.command("list", help="List all stacks.")
@json_option
def list_(as_json: bool) -> None:
    """List stacks."""
    file = place.to_read()
    found = [{**_described(file, name), "active": name == file.active} for name in file.names("stacks")]
    if as_json:
        print_json(found)
        return
    print_table(
        ("", "NAME", "ARTIFACT STORE", "CONTAINER REGISTRY", "STEP OPERATORS", "IMAGE BUILDER"),
        [
            (
                "*" if row["active"] else "",
                row["name"],
                row["artifact_store"]["name"],
                row["container_registry"]["name"],
                ", ".join(operator["name"] for operator in row["step_operators"]),
                row["image_builder"]["name"],
            )
            for row in found
        ],
    )


@stack.command("describe", help="Show a stack with all settings of its components; default: the active one.")
@click.argument("name", required=False, shell_complete=place.complete("stacks"))
@json_option
def describe(name: str | None, as_json: bool) -> None:
    """Show a stack."""
    file = place.to_read()
    described = _described(file, name or file.active)
    if as_json:
        print_json(described)
        return
    click.echo(f"stack {described['name']}{' (active)' if described['name'] == file.active else ''}")
    singles = ("artifact_store", "container_registry", "image_builder")
    parts = [(part, described[part]) for part in singles]
    parts += [("step_operator", operator) for operator in described["step_operators"]]
    rows = []
    for part, component in parts:
        rows.append((part.replace("_", " "), component["name"], component["flavor"], ""))
        rows += [("", "", key, value) for key, value in component["settings"].items()]
    print_table(("COMPONENT", "NAME", "FLAVOR, SETTINGS", "VALUE"), rows)


@stack.command("copy", help="Register a stack with the components of another one.")
@click.argument("name", shell_complete=place.complete("stacks"))
@click.argument("new")
def copy(name: str, new: str) -> None:
    """Copy a stack."""
    from airflow_stepops.stacks.edit import copy_stack

    path = place.to_change()
    copy_stack(path, name, new)
    place.say_changed(f"Registered stack {new!r}", path)


@stack.command("delete", help="Remove a stack that is not active; its components stay.")
@click.argument("name", shell_complete=place.complete("stacks"))
def delete(name: str) -> None:
    """Remove a stack."""
    from airflow_stepops.stacks.edit import remove_stack

    path = place.to_change()
    remove_stack(path, name)
    click.echo(f"Deleted stack {name!r} from {path}; its components stay.")


@stack.command("export", help="Write a stack and its components as a stack file of their own; default: the active one.")
@click.argument("name", required=False, shell_complete=place.complete("stacks"))
@click.option("-f", "--file", "target", type=click.Path(path_type=Path, dir_okay=False), help="Default: print it.")
def export(name: str | None, target: Path | None) -> None:
    """Export a stack."""
    from airflow_stepops.stacks.edit import exported
    from airflow_stepops.stacks.yaml_text import document_text

    file = place.to_read()
    name = name or file.active
    text = document_text(exported(file, name))
    if target is None:
        click.echo(text, nl=False)
        return
    try:
        with target.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise click.UsageError(f"{target}: {error.strerror}.") from error
    place.say_changed(f"Stack {name!r} is", target)


@stack.command("import", help="Add the stacks and components of another stack file.")
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False))
def import_(source: Path) -> None:
    """Import stacks."""
    from airflow_stepops.stacks.edit import import_stacks

    path = place.to_change()
    names = import_stacks(path, source)
    place.say_changed(f"Imported {_and(names)}", path)


def _and(names: Sequence[str]) -> str:
    return ", ".join(f"stack {name!r}" for name in names) or "no stack, components only,"


def _described(file: Any, name: str) -> dict[str, Any]:
    found = file.stack(name)
    component = {
        part: _component(getattr(found, part)) for part in ("artifact_store", "container_registry", "image_builder")
    }
    return {"name": name, **component, "step_operators": [_component(operator) for operator in found.step_operators]}


def _component(component: Any) -> dict[str, Any]:
    settings = component.model_dump(mode="json", exclude={"name"})
    return {"name": component.name, "flavor": component.flavor, "settings": settings}
