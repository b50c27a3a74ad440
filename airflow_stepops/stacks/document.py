"""The text of a stack file: strict YAML, and names that fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from airflow_stepops.errors import StackError, did_you_mean
from airflow_stepops.stacks.checks import refuse_secrets, unknown_key
from airflow_stepops.stacks.flavors import KINDS

VERSION = 1

#: What is always there, so that nothing needs setting up. A file may define its own under the same names.
BUILT_IN: dict[str, dict[str, dict[str, Any]]] = {
    "artifact_stores": {"local": {"flavor": "local"}},
    "container_registries": {"local": {"flavor": "local"}},
    "image_builders": {"oci": {"flavor": "oci"}},
    "step_operators": {"local": {"flavor": "local"}},
    "stacks": {"local": {"artifact_store": "local", "container_registry": "local", "step_operators": ["local"]}},
}
#: Key of a stack → section of what it names.
PARTS = {
    "artifact_store": "artifact_stores",
    "container_registry": "container_registries",
    "image_builder": "image_builders",
    "step_operators": "step_operators",
}
#: Section → what one of its entries is called.
NOUNS = {**{section: part.removesuffix("s").replace("_", " ") for part, section in PARTS.items()}, "stacks": "stack"}
_REQUIRED = ("artifact_store", "container_registry")
_KEYS = ("version", "active", *KINDS, "stacks")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that refuses a key given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Build a mapping."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_document(data: bytes, where: str) -> dict[str, Any]:
    """Return the sections of a stack file, with the built-in components and stack in them.

    What a flavor says of its settings is not checked here: flavors are imported when a stack is asked for.

    :param where: what to call the file in errors.
    :raises StackError: in one line, naming file and key.
    """
    document = parse(data, where)
    try:
        refuse_secrets(document, where)
    except RecursionError:
        raise StackError(f"{where}: refers to itself, or is nested too deeply.") from None
    _check_keys(document, where)
    sections = {kind: {**BUILT_IN[kind], **document.get(kind, {})} for kind in (*KINDS, "stacks")}
    for name, stack in sections["stacks"].items():
        _check_stack(stack, sections, f"{where}: stacks.{name}")
    active = document.get("active", "local")
    check_name(active, sections["stacks"], "stack", f"{where}: active")
    return {**sections, "active": active}


def parse(data: bytes, where: str) -> dict[str, Any]:
    """Return what a YAML file says, as it is.

    :raises StackError: if it is not YAML, or no mapping.
    """
    try:
        document = yaml.load(data.decode(), Loader=_Loader)  # noqa: S506 - a safe loader
    except UnicodeDecodeError as error:
        raise StackError(f"{where}: is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except RecursionError:
        raise StackError(f"{where}: is nested too deeply.") from None
    # A date or number that YAML knows but Python cannot hold is a ValueError.
    except (yaml.YAMLError, ValueError) as error:
        if "nesting depth" in str(error):  # libyaml's own limit, where it has one
            raise StackError(f"{where}: is nested too deeply.") from None
        raise StackError(f"{where}: is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(document, dict):
        raise StackError(f"{where}: must be a mapping with the keys version, stacks and others.")
    return document


def named(stack: Mapping[str, Any], kind: str) -> list[str]:
    """Return the names of the components of a kind in a stack."""
    found = [value for part, value in stack.items() if PARTS[part] == kind]
    return [name for value in found for name in (value if isinstance(value, list) else [value])]


def check_name(name: Any, known: Mapping[str, Any], what: str, where: str) -> None:
    """Check that there is something of this name.

    :param what: what to call it in the error.
    :raises StackError: with the nearest name.
    """
    if not isinstance(name, str):
        raise StackError(f"{where}: {name!r} is not allowed: give the name of one {what}.")
    if name not in known:
        raise StackError(
            f"{where}: there is no {what} {name!r}.{did_you_mean(name, known)} There are: {', '.join(sorted(known))}."
        )


def _check_keys(document: dict[str, Any], where: str) -> None:
    for key in document:
        if key not in _KEYS:
            raise unknown_key(f"{where}: {key}", str(key), _KEYS, "key")
    version = document.get("version")
    if version != VERSION or type(version) is not int:
        raise StackError(f"{where}: version: {version!r} is not supported. Write version: {VERSION}.")
    for kind in (*KINDS, "stacks"):
        section = document.get(kind, {})
        if not isinstance(section, dict):
            raise StackError(f"{where}: {kind}: must be a mapping of names, not {type(section).__name__}.")
        for name, value in section.items():
            if not isinstance(name, str) or not name or not isinstance(value, dict):
                raise StackError(f"{where}: {kind}.{name}: must be a name with a mapping of settings.")


def _check_stack(stack: Mapping[str, Any], sections: Mapping[str, Any], where: str) -> None:
    for key in stack:
        if key not in PARTS:
            raise unknown_key(f"{where}.{key}", str(key), PARTS, "key")
    for key in _REQUIRED:
        if key not in stack:
            raise StackError(f"{where}.{key}: this setting is required.")
    for key, kind in PARTS.items():
        if key not in stack:
            continue
        names = stack[key]
        if key == "step_operators" and not isinstance(names, list):
            raise StackError(f"{where}.{key}: {names!r} is not allowed: give a list of names, the default first.")
        for name in names if key == "step_operators" else [names]:
            check_name(name, sections[kind], NOUNS[kind], f"{where}.{key}")
