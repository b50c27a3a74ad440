"""``stepops artifact-store`` and the other kinds of component: register, look at, change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from airflow_stepops.cli import place
from airflow_stepops.cli.main import Group
from airflow_stepops.cli.output import json_option, print_json, print_table
from airflow_stepops.errors import did_you_mean

_RAW = {"ignore_unknown_options": True, "allow_extra_args": True}


def _group(kind: str, one: str, many: str) -> click.Group:
    """Return the commands for one kind of component."""
    words = {"one": one, "many": many}
    group = Group(one.replace(" ", "-"), help="Register, change and look at {many}.".format(**words))
    for make in (_register, _list, _describe, _update, _rename, _delete):
        group.add_command(make(kind, one))
    return group


def _register(kind: str, noun: str) -> click.Command:
    @click.command("register", context_settings=_RAW, help=f"Register a {noun}: NAME --flavor F [--setting value …].")
    @click.argument("name")
    @click.option("--flavor", "--type", "flavor", help="See 'stepops flavor list'.")
    @click.pass_context
    def register(ctx: click.Context, name: str, flavor: str | None) -> None:
        from airflow_stepops.stacks.edit import add_component
        from airflow_stepops.stacks.flavors import flavor_class, flavors
        from airflow_stepops.stacks.strings import typed_settings

        texts = _settings(name, ctx.args)
        where = f"{kind}.{name}"
        if flavor is None:
            typo = next((f" Did you mean --flavor by --{key}?" for key in texts if did_you_mean(key, ["flavor"])), "")
            raise click.UsageError(f"--flavor is missing.{typo} Allowed: {', '.join(flavors(kind))}.")
        model = flavor_class(kind, flavor, where)
        path = place.to_change()
        add_component(path, kind, name, {"flavor": flavor, **typed_settings(model, texts, where)})
        place.say_changed(f"Registered {noun} {name!r}", path)

    return register


def _update(kind: str, noun: str) -> click.Command:
    @click.command("update", context_settings=_RAW, help=f"Change settings of a {noun}: NAME [--setting value …].")
    @click.argument("name", shell_complete=place.complete(kind))
    @click.option("--unset", multiple=True, metavar="SETTING", help="Give a setting its default back.")
    @click.pass_context
    def update(ctx: click.Context, name: str, unset: Sequence[str]) -> None:
        from airflow_stepops.stacks.edit import change_component
        from airflow_stepops.stacks.strings import typed_settings

        texts = _settings(name, ctx.args)
        model = type(place.to_read().component(kind, name))
        settings = typed_settings(model, texts, f"{kind}.{name}")
        path = place.to_change()
        change_component(path, kind, name, settings, [key.replace("-", "_") for key in unset])
        place.say_changed(f"Updated {noun} {name!r}", path)

    return update


def _list(kind: str, noun: str) -> click.Command:
    @click.command("list", help=f"List every {noun}.")
    @json_option
    def list_(as_json: bool) -> None:
        file = place.to_read()
        found = []
        for component in file.components(kind):
            stacks = [stack for stack in file.names("stacks") if component.name in file.used(stack, kind)]
            found.append({**_described(kind, component), "stacks": stacks})
        if as_json:
            print_json(found)
            return
        rows = [(row["name"], row["flavor"], _short(row["settings"]), ", ".join(row["stacks"])) for row in found]
        print_table(("NAME", "FLAVOR", "SETTINGS", "IN STACKS"), rows)

    return list_


def _describe(kind: str, noun: str) -> click.Command:
    @click.command("describe", help=f"Show all settings of a {noun}.")
    @click.argument("name", shell_complete=place.complete(kind))
    @json_option
    def describe(name: str, as_json: bool) -> None:
        component = place.to_read().component(kind, name)
        described = _described(kind, component)
        if as_json:
            print_json(described)
            return
        click.echo(f"{noun} {name}, flavor {component.flavor}")
        set_here = component.model_fields_set
        rows = [
            (key, _text(value), "" if key in set_here else "default") for key, value in described["settings"].items()
        ]
        print_table(("SETTING", "VALUE", ""), rows)

    return describe


def _rename(kind: str, noun: str) -> click.Command:
    @click.command("rename", help=f"Give a {noun} another name, in all stacks too.")
    @click.argument("name", shell_complete=place.complete(kind))
    @click.argument("new")
    def rename(name: str, new: str) -> None:
        from airflow_stepops.stacks.edit import rename_component

        path = place.to_change()
        rename_component(path, kind, name, new)
        place.say_changed(f"Renamed {noun} {name!r} to {new!r}", path)

    return rename


def _delete(kind: str, noun: str) -> click.Command:
    @click.command("delete", help=f"Remove a {noun} that is in no stack.")
    @click.argument("name", shell_complete=place.complete(kind))
    def delete(name: str) -> None:
        from airflow_stepops.stacks.edit import remove_component

        path = place.to_change()
        remove_component(path, kind, name)
        click.echo(f"Deleted {noun} {name!r} from {path}.")

    return delete


def _settings(name: str, tokens: Sequence[str]) -> dict[str, list[str]]:
    """Read ``--key value``, ``--key=value`` and ``--flag`` as settings.

    :raises click.UsageError: for what is neither.
    """
    if name.startswith("-"):
        raise click.UsageError(f"the name comes first, before {name}.")
    found: dict[str, list[str]] = {}
    waiting: str | None = None
    for token in [*tokens, None]:
        option = token is None or token.startswith("--")
        if waiting is not None:
            found.setdefault(waiting, []).append("true" if option else str(token))
            waiting = None
            if not option:
                continue
        if token is None:
            break
        key, equals, value = token.removeprefix("--").partition("=")
        if not option or not key:
            raise click.UsageError(f"unexpected argument {token!r}: settings are given as --setting value.")
        if equals:
            found.setdefault(key, []).append(value)
        else:
            waiting = key
    return found


def _described(kind: str, component: Any) -> dict[str, Any]:
    settings = component.model_dump(mode="json", exclude={"name"})
    return {"kind": kind, "name": component.name, "flavor": component.flavor, "settings": settings}


def _short(settings: dict[str, Any]) -> str:
    return " ".join(f"{key}={_text(value)}" for key, value in settings.items() if value not in (None, {}, [], False))


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


artifact_store = _group("artifact_stores", "artifact store", "artifact stores")
container_registry = _group("container_registries", "container registry", "container registries")
image_builder = _group("image_builders", "image builder", "image builders")
step_operator = _group("step_operators", "step operator", "step operators")
