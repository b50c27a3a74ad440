"""``stepops.yaml``: finding it, reading it strictly."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from airflow_stepops import settings
from airflow_stepops.errors import StackError, did_you_mean
from airflow_stepops.stacks.checks import unknown_key
from airflow_stepops.stacks.components import Component
from airflow_stepops.stacks.flavors import KINDS, component
from airflow_stepops.stacks.models import Stack

FILE_NAME = "stepops.yaml"
VERSION = 1

#: The stack that is always there: nothing needs setting up.
_LOCAL: dict[str, dict[str, dict[str, Any]]] = {
    "artifact_stores": {"local": {"flavor": "local"}},
    "container_registries": {"local": {"flavor": "local"}},
    "image_builders": {"oci": {"flavor": "oci"}},
    "step_operators": {"local": {"flavor": "local"}},
    "stacks": {"local": {"artifact_store": "local", "container_registry": "local", "step_operators": ["local"]}},
}
_STACK_KEYS = ("artifact_store", "container_registry", "image_builder", "step_operators")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that refuses a key given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Build a mapping."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int)) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            if isinstance(key, (str, int)):
                seen.add(key)
        return super().construct_mapping(node, deep)


class StackFile:
    """The components and stacks of a file, checked when they are asked for by name.

    :param sections: the file's sections.
    :param where: what to call the file in errors.
    """

    def __init__(self, sections: Mapping[str, Any], where: str) -> None:
        self._sections = sections
        self._where = where

    @property
    def active(self) -> str:
        """Name of the stack for pipelines that name none."""
        return str(self._sections.get("active", "local"))

    @property
    def stack_names(self) -> list[str]:
        """Names of all stacks, the built-in one included."""
        return sorted({*self._sections.get("stacks", {}), *_LOCAL["stacks"]})

    def stack(self, name: str | None = None) -> Stack:
        """Return a stack with its components; ``None`` is the active one.

        :raises StackError: if there is none of that name, or something in it is wrong.
        """
        name = name or self.active
        parts = self._section("stacks").get(name)
        if parts is None:
            near = did_you_mean(name, self.stack_names)
            raise StackError(
                f"{self._where}: there is no stack {name!r}.{near} There are: {', '.join(self.stack_names)}."
            )
        where = f"stacks.{name}"
        operators = parts.get("step_operators", [])
        if not isinstance(operators, list):
            raise StackError(f"{self._where}: {where}.step_operators: give a list of names, the default first.")
        return Stack(
            name=name,
            artifact_store=self._part("artifact_stores", parts.get("artifact_store"), where),
            container_registry=self._part("container_registries", parts.get("container_registry"), where),
            image_builder=self._part("image_builders", parts.get("image_builder", "oci"), where),
            step_operators=tuple(self._part("step_operators", operator, where) for operator in operators),
        )

    def stacks(self) -> list[Stack]:
        """Return every stack."""
        return [self.stack(name) for name in self.stack_names]

    def check(self) -> None:
        """Check every component and stack.

        :raises StackError: for the first thing that is wrong.
        """
        for kind in KINDS:
            for name in self._section(kind):
                self._component(kind, name)
        self.stacks()
        if self.active not in self.stack_names:
            self.stack(self.active)

    def _section(self, kind: str) -> dict[str, Any]:
        return {**_LOCAL.get(kind, {}), **self._sections.get(kind, {})}

    def _part(self, kind: str, name: Any, where: str) -> Any:
        singular = {"container_registries": "container_registry"}.get(kind, kind.removesuffix("s"))
        if name is None:
            raise StackError(f"{self._where}: {where}.{singular}: this setting is required.")
        known = self._section(kind)
        if name not in known:
            near = did_you_mean(str(name), known)
            raise StackError(
                f"{self._where}: {where}: there is no {singular} {name!r}.{near} There are: {', '.join(sorted(known))}."
            )
        return self._component(kind, name)

    @functools.cache  # noqa: B019 - as old as the file's own cache entry
    def _component(self, kind: str, name: str) -> Component:
        return component(kind, name, self._section(kind)[name], f"{self._where}: {kind}.{name}")


def find_file(near: Path | None = None) -> Path | None:
    """Return the stack file: what ``STEPOPS_CONFIG`` or ``[stepops] config`` names, else the one beside the DAGs.

    :param near: a folder of DAGs; it and the folders above it, up to the DAGs folder, are looked through.
    :raises StackError: if a file is named that does not exist.
    """
    configured = settings.get("config")
    if configured:
        path = Path(configured).expanduser()
        if not path.is_file():
            raise StackError(f"{path}: there is no such file, but STEPOPS_CONFIG or [stepops] config names it.")
        return path
    dags_folder = _dags_folder()
    folders = [near, *near.parents] if near is not None else []
    if dags_folder in folders:
        folders = folders[: folders.index(dags_folder) + 1]
    else:
        folders = [*folders[:1], *([dags_folder] if dags_folder else [])]
    return next((path for folder in folders if (path := folder / FILE_NAME).is_file()), None)


def load(near: Path | None = None) -> StackFile:
    """Read the stack file, or the built-in ``local`` stack when there is none. Read again only when it has changed.

    :param near: see :func:`find_file`.
    :raises StackError: in one line, naming file and key.
    """
    path = find_file(near)
    if path is None:
        return StackFile({}, "built-in stacks")
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size, state.st_ino)


@functools.lru_cache(maxsize=32)
def _read(path: Path, *_state: int) -> StackFile:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a safe loader
    except UnicodeDecodeError as error:
        raise StackError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except yaml.YAMLError as error:
        raise StackError(f"{path}: is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(document, dict):
        raise StackError(f"{path}: must be a mapping with the keys version, stacks and others.")
    _check_structure(document, str(path))
    return StackFile(document, str(path))


def _check_structure(document: dict[str, Any], where: str) -> None:
    allowed = ("version", "active", *KINDS, "stacks")
    for key, value in document.items():
        if key not in allowed:
            raise unknown_key(f"{where}: {key}", str(key), allowed, "key")
        if key in KINDS or key == "stacks":
            _check_section(value, f"{where}: {key}")
    if document.get("version") != VERSION:
        raise StackError(f"{where}: version: {document.get('version')!r} is not supported. Write version: {VERSION}.")
    for name, parts in document.get("stacks", {}).items():
        for key in parts:
            if key not in _STACK_KEYS:
                raise unknown_key(f"{where}: stacks.{name}.{key}", str(key), _STACK_KEYS, "key")


def _check_section(section: Any, where: str) -> None:
    if not isinstance(section, dict):
        raise StackError(f"{where}: must be a mapping of names, not {type(section).__name__}.")
    for name, value in section.items():
        if not isinstance(name, str) or not isinstance(value, dict):
            raise StackError(f"{where}.{name}: must be a name with a mapping of settings.")


def _dags_folder() -> Path | None:
    configured = settings.airflow("core", "dags_folder")
    return Path(os.path.realpath(configured)) if configured else None
