"""``stepops.yaml``: finding it, and the stacks in it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_stepops import settings
from airflow_stepops.errors import StackError
from airflow_stepops.stacks.components import StepOperatorComponent
from airflow_stepops.stacks.document import BUILT_IN, NOUNS, PARTS, check_name, named, read_document
from airflow_stepops.stacks.flavors import KINDS, component
from airflow_stepops.stacks.models import Stack

if TYPE_CHECKING:
    from airflow_stepops.artifacts.store import ArtifactStore
    from airflow_stepops.stacks.components import Component

FILE_NAME = "stepops.yaml"


class StackFile:
    """The components and stacks of a file. The settings of a component are checked when it is asked for.

    :param sections: what :func:`~airflow_stepops.stacks.document.read_document` returns.
    :param where: what to call the file in errors.
    """

    def __init__(self, sections: Mapping[str, Any], where: str) -> None:
        self._sections = sections
        self._where = where
        self._components: dict[tuple[str, str], Component] = {}

    @property
    def active(self) -> str:
        """Name of the stack for pipelines that name none: what ``[stepops] stack`` says, else the file."""
        return settings.get("stack") or str(self._sections["active"])

    def entry(self, section: str, name: str) -> Mapping[str, Any]:
        """Return what the file says of a component or stack.

        :param section: one of :data:`~airflow_stepops.stacks.flavors.KINDS`, or ``"stacks"``.
        :raises StackError: if there is none of that name.
        """
        check_name(name, self._sections[section], NOUNS[section], self._where)
        entry: Mapping[str, Any] = self._sections[section][name]
        return entry

    def names(self, section: str) -> list[str]:
        """Return the names of all components of a kind, or of all stacks, those included that are built in."""
        return sorted(self._sections[section])

    def used(self, stack: str, kind: str) -> list[str]:
        """Return the names of the components of a kind that a stack names."""
        return named(self.entry("stacks", stack), kind)

    def stack(self, name: str | None = None) -> Stack:
        """Return a stack with its components; ``None`` is the active one.

        :raises StackError: if there is none of that name, or a setting of a component is wrong.
        """
        name = name or self.active
        check_name(name, self._sections["stacks"], "stack", self._where)
        parts = {"image_builder": "oci", "step_operators": [], **self._sections["stacks"][name]}
        operators = parts.pop("step_operators")
        single: dict[str, Any] = {key: self.component(PARTS[key], part) for key, part in parts.items()}
        step_operators: Any = tuple(self.component("step_operators", operator) for operator in operators)
        return Stack(name=name, step_operators=step_operators, find_operator=self._operator, **single)

    def _operator(self, name: str) -> StepOperatorComponent:
        found = self.component("step_operators", name)
        assert isinstance(found, StepOperatorComponent)
        return found

    def stacks(self) -> list[Stack]:
        """Return every stack.

        :raises StackError: if a setting of a component is wrong.
        """
        return [self.stack(name) for name in self.names("stacks")]

    def component(self, kind: str, name: str) -> Component:
        """Return a component.

        :param kind: its section, one of :data:`~airflow_stepops.stacks.flavors.KINDS`.
        :raises StackError: if its flavor is not known or one of its settings is wrong.
        """
        key = (kind, name)
        if key not in self._components:
            self._components[key] = component(kind, name, self.entry(kind, name), f"{self._where}: {kind}.{name}")
        return self._components[key]

    def components(self, kind: str) -> list[Any]:
        """Return every component of a kind, whether a stack has it or not."""
        return [self.component(kind, name) for name in self._sections[kind]]

    def store_for(self, uri: str) -> ArtifactStore | None:
        """Open the artifact store that holds an object; see :func:`store_for`."""
        holding = [store for store in self.components("artifact_stores") if uri.startswith(f"{store.root()}/")]
        if not holding:
            return None
        opened: ArtifactStore = max(holding, key=lambda store: len(store.root())).open()
        return opened

    def check(self) -> None:
        """Check every component, those included that are in no stack.

        :raises StackError: for the first thing that is wrong.
        """
        for kind in KINDS:
            self.components(kind)


def find_file(near: Path | None = None) -> Path | None:
    """Return the stack file: what ``STEPOPS_CONFIG`` or ``[stepops] config`` names, else the one beside the DAGs.

    :param near: a folder of DAGs; it and the folders above it, up to the DAGs folder, are looked through.
    :raises StackError: if a file is named that does not exist.
    """
    configured = settings.get("config")
    if configured:
        path = settings.expanded(configured)
        if not path.is_file():
            raise StackError(f"{path}: there is no such file, but STEPOPS_CONFIG or [stepops] config names it.")
        return path
    dags_folder = settings.dags_folder()
    folders = [near, *near.parents] if near is not None else []
    above = folders.index(dags_folder) if dags_folder in folders else 0
    folders = [*folders[: above + 1], dags_folder]
    return next((path for folder in folders if (path := folder / FILE_NAME).is_file()), None)


def file_to_change(near: Path) -> Path:
    """Return the stack file that commands change, which may not be there yet.

    :param near: see :func:`find_file`; where there is no DAGs folder, a new file is put here.
    """
    configured = settings.get("config")
    if configured:
        return settings.expanded(configured)
    dags_folder = settings.dags_folder()
    return find_file(near) or (dags_folder if dags_folder.is_dir() else near) / FILE_NAME


def load(near: Path | None = None) -> StackFile:
    """Read the stack file, or the built-in ``local`` stack when there is none. Read again only when it has changed.

    :param near: see :func:`find_file`.
    :raises StackError: in one line, naming file and key.
    """
    path = find_file(near)
    return _built_in() if path is None else read(path)


def read(path: Path) -> StackFile:
    """Read a stack file that is somewhere else. Read again only when it has changed.

    :raises StackError: in one line, naming file and key.
    """
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size, state.st_ino)
    except OSError as error:
        raise StackError(f"{path}: cannot be read: {error.strerror}.") from error


def store_for(uri: str, near: Path | None = None) -> ArtifactStore | None:
    """Open the artifact store that holds an object, with the credentials of the Airflow side.

    :param uri: of the object.
    :param near: see :func:`find_file`.
    :return: the store with the longest root above it; ``None`` when no store of the stack file is.
    :raises StackError: if the settings of a store are wrong.
    """
    return load(near).store_for(uri)


@functools.cache
def _built_in() -> StackFile:
    return StackFile({**BUILT_IN, "active": "local"}, "built-in stacks")


@functools.lru_cache(maxsize=32)
def _read(path: Path, *_state: int) -> StackFile:
    return StackFile(read_document(path.read_bytes(), str(path)), str(path))
