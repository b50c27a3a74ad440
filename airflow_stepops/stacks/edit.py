"""The changes that commands make to a stack file. Each is checked as a whole before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from airflow_stepops.errors import StackError
from airflow_stepops.stacks.checks import refuse_secrets, unknown_key
from airflow_stepops.stacks.document import BUILT_IN, NOUNS, PARTS, VERSION, check_name, named, parse, read_document
from airflow_stepops.stacks.draft import Draft, editing
from airflow_stepops.stacks.file import StackFile
from airflow_stepops.stacks.flavors import KINDS, component

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def add_component(path: Path, kind: str, name: str, settings: Mapping[str, Any]) -> None:
    """Register a component.

    :param path: the stack file; made when it is not there.
    :param kind: one of :data:`~airflow_stepops.stacks.flavors.KINDS`.
    :param settings: ``flavor`` and its settings.
    :raises StackError: if the name is taken or not allowed, or a setting is wrong.
    """
    with editing(path) as draft:
        _check_new(draft, kind, name, NOUNS[kind])
        _check_component(kind, name, settings)
        draft.set((kind, name), dict(settings))


def change_component(path: Path, kind: str, name: str, settings: Mapping[str, Any], unset: Iterable[str] = ()) -> None:
    """Change some settings of a component; others stay.

    :param unset: settings that get their default back.
    :raises StackError: if there is no such component, or a setting is wrong.
    """
    with editing(path) as draft:
        before = _entries(draft, kind)
        check_name(name, before, NOUNS[kind], draft.where)
        after = {**before[name], **settings}
        for key in unset:
            if key not in before[name] or key == "flavor":
                raise unknown_key(
                    f"{NOUNS[kind]} {name!r}: {key}", key, set(before[name]) - {"flavor"}, "setting to unset"
                )
            del after[key]
        _check_component(kind, name, after)
        if name not in draft.section(kind):
            draft.set((kind, name), after)
            return
        for key in unset:
            draft.remove((kind, name, key))
        for key, value in settings.items():
            if key not in before[name] or before[name][key] != value:
                draft.set((kind, name, key), value)


def remove_component(path: Path, kind: str, name: str) -> None:
    """Remove a component that is in no stack.

    :raises StackError: if there is no such component, or a stack has it.
    """
    with editing(path) as draft:
        _check_own(draft, kind, name, NOUNS[kind])
        users = [stack for stack, parts in draft.section("stacks").items() if name in named(parts, kind)]
        if users and name not in BUILT_IN[kind]:
            raise StackError(
                f"{NOUNS[kind]} {name!r} is in the stack {', '.join(users)}: change or delete that stack first."
            )
        draft.remove((kind, name))


def rename_component(path: Path, kind: str, name: str, new: str) -> None:
    """Give a component another name, in all stacks too.

    :raises StackError: if there is no such component, or the new name is taken or not allowed.
    """
    with editing(path) as draft:
        _check_own(draft, kind, name, NOUNS[kind])
        _check_new(draft, kind, new, NOUNS[kind])
        draft.rename((kind, name), new)
        for stack, parts in draft.section("stacks").items():
            for part, value in parts.items():
                if PARTS[part] == kind and name in named(parts, kind):
                    renamed = [new if item == name else item for item in value] if isinstance(value, list) else new
                    draft.set(("stacks", stack, part), renamed)


def add_stack(path: Path, name: str, parts: Mapping[str, Any]) -> None:
    """Register a stack.

    :param parts: as in the file: ``artifact_store``, ``container_registry``, ``step_operators`` …
    :raises StackError: if the name is taken or not allowed, or a component does not exist.
    """
    with editing(path) as draft:
        _check_new(draft, "stacks", name, "stack")
        draft.set(("stacks", name), dict(parts))


def change_stack(path: Path, name: str, parts: Mapping[str, Any]) -> None:
    """Replace some components of a stack.

    :raises StackError: if there is no such stack or component.
    """
    with editing(path) as draft:
        _check_own(draft, "stacks", name, "stack")
        for part, value in parts.items():
            draft.set(("stacks", name, part), value)


def copy_stack(path: Path, name: str, new: str) -> None:
    """Register a stack with the components of another one.

    :raises StackError: if there is no such stack, or the new name is taken or not allowed.
    """
    with editing(path) as draft:
        stacks = _entries(draft, "stacks")
        check_name(name, stacks, "stack", draft.where)
        _check_new(draft, "stacks", new, "stack")
        draft.set(("stacks", new), dict(stacks[name]))


def remove_stack(path: Path, name: str) -> None:
    """Remove a stack that is not the active one; its components stay.

    :raises StackError: if there is no such stack, or it is active.
    """
    with editing(path) as draft:
        _check_own(draft, "stacks", name, "stack")
        if draft.active == name and name not in BUILT_IN["stacks"]:
            raise StackError(f"stack {name!r} is the active one: choose another first, with 'stepops stack set NAME'.")
        draft.remove(("stacks", name))


def activate_stack(path: Path, name: str) -> None:
    """Make a stack the one for pipelines that name none.

    :raises StackError: if there is no such stack.
    """
    with editing(path) as draft:
        check_name(name, _entries(draft, "stacks"), "stack", draft.where)
        draft.set(("active",), name)


def exported(file: StackFile, name: str) -> dict[str, Any]:
    """Return a stack and its components as the document of a stack file of their own.

    :raises StackError: if there is no such stack.
    """
    parts = file.entry("stacks", name)
    document: dict[str, Any] = {"version": VERSION, "active": name}
    for kind in KINDS:
        entries = {used: dict(file.entry(kind, used)) for used in named(parts, kind)}
        entries = {used: entry for used, entry in entries.items() if BUILT_IN[kind].get(used) != entry}
        if entries:
            document[kind] = entries
    return {**document, "stacks": {name: dict(parts)}}


def import_stacks(path: Path, source: Path) -> list[str]:
    """Add the stacks and components of another stack file.

    :returns: the names of the stacks.
    :raises StackError: if something of a name is there already and says something else.
    """
    try:
        data = source.read_bytes()
    except OSError as error:
        raise StackError(f"{source}: cannot be read: {error.strerror}.") from error
    StackFile(read_document(data, str(source)), str(source)).check()
    document = parse(data, str(source))
    with editing(path) as draft:
        for section in (*KINDS, "stacks"):
            for name, entry in document.get(section, {}).items():
                _check_name(name)
                there = _entries(draft, section).get(name)
                if there is None:
                    draft.set((section, name), entry)
                elif there != entry:
                    noun = NOUNS[section]
                    raise StackError(f"{path}: there is another {noun} {name!r} already. Rename one of the two.")
    return list(document.get("stacks", {}))


def _entries(draft: Draft, section: str) -> dict[str, Any]:
    return {**BUILT_IN[section], **draft.section(section)}


def _check_component(kind: str, name: str, settings: Mapping[str, Any]) -> None:
    where = f"{kind}.{name}"
    refuse_secrets(settings, where)
    component(kind, name, settings, where)


def _check_own(draft: Draft, section: str, name: str, noun: str) -> None:
    if name not in draft.section(section):
        if name in BUILT_IN[section]:
            raise StackError(f"the {noun} {name!r} is built in: it is not in the file.")
        check_name(name, _entries(draft, section), noun, draft.where)


def _check_new(draft: Draft, section: str, name: str, noun: str) -> None:
    _check_name(name)
    if name in draft.section(section):
        raise StackError(f"the {noun} {name!r} is there already: update it, or choose another name.")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise StackError(
            f"{name!r} is no name for a stack or component: letters, digits, '-', '_' and '.' are allowed, and the "
            "first is a letter or digit."
        )
