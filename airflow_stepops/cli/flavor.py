"""``stepops flavor``: what kinds of component there are, and their settings."""

from __future__ import annotations

import inspect
import types
from typing import Any, Literal, Union, get_args, get_origin

import click

from airflow_stepops.cli.main import Group
from airflow_stepops.cli.output import json_option, print_json, print_table
from airflow_stepops.stacks.components import Component
from airflow_stepops.stacks.document import NOUNS
from airflow_stepops.stacks.flavors import KINDS, flavor_class, flavors
from airflow_stepops.stacks.strings import setting_names


@click.group(cls=Group, help="Show the flavors of components and their settings.")
def flavor() -> None:
    """Commands on flavors."""


@flavor.command("list", help="List all flavors, those of other packages included, with every setting.")
@click.argument("kind", required=False, type=click.Choice([noun.replace(" ", "-") for noun in NOUNS.values()][:4]))
@json_option
def list_(kind: str | None, as_json: bool) -> None:
    """List flavors."""
    kinds = [section for section in KINDS if kind in (None, NOUNS[section].replace(" ", "-"))]
    found = [_described(section, name) for section in kinds for name in flavors(section)]
    if as_json:
        print_json(found)
        return
    for entry in found:
        click.echo(f"{click.style(entry['flavor'], bold=True)} – {NOUNS[entry['kind']]}: {entry['summary']}")
        if entry["settings"]:
            print_table(("  SETTING", "TYPE", "DEFAULT", "MEANING"), [_row(item) for item in entry["settings"]])
        click.echo()


def _described(kind: str, name: str) -> dict[str, Any]:
    model = flavor_class(kind, name, "flavor list")
    settings = [_setting(model, setting) for setting in setting_names(model)]
    summary = (inspect.getdoc(model) or "").partition("\n\n")[0]
    return {"kind": kind, "flavor": name, "summary": " ".join(summary.split()), "settings": settings}


def _setting(model: type[Component], name: str) -> dict[str, Any]:
    field = model.model_fields[name]
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return {
        "name": name,
        "type": type_name(field.annotation),
        "required": field.is_required(),
        "default": default,
        "meaning": field.description or "",
    }


def _row(setting: dict[str, Any]) -> tuple[Any, ...]:
    default = "required" if setting["required"] else setting["default"]
    return f"  {setting['name']}", setting["type"], default, setting["meaning"]


def type_name(annotation: Any) -> str:
    """Return the type of a setting for people, such as ``text | null``, ``list of text`` or ``'a' | 'b'``."""
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(argument) for argument in arguments if argument is not type(None))
    if origin is not None and hasattr(annotation, "__metadata__"):
        return type_name(arguments[0])
    if origin in (list, tuple, set, frozenset):
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return f"mapping of {type_name(arguments[1])}"
    words = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "anything", dict: "mapping"}
    return words.get(annotation) or getattr(annotation, "__name__", str(annotation)).lower()
