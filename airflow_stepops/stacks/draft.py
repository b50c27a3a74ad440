"""Changing ``stepops.yaml``: a change is whole or not there, comments stay, and writers take turns.

Every Airflow component reads the file, so what is written must be read back as what was meant: each change is made on
the text and on plain data, and nothing is written unless the two agree.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_stepops.errors import StackError
from airflow_stepops.stacks.document import VERSION, parse, read_document
from airflow_stepops.stacks.yaml_text import KeyPath, remove_value, rename_key, set_value

_NEW = f"""\
# Components and stacks of airflow-stepops. Credentials do not belong here: give the ids of Airflow connections.
version: {VERSION}
active: local
"""
_UNFINISHED = ".unfinished"


class Draft:
    """A stack file that is being changed.

    :param text: what the file says.
    :param where: what to call it in errors.
    :raises StackError: if the file is not valid as it is.
    """

    def __init__(self, text: str, where: str) -> None:
        read_document(text.encode(), where)
        self.where = where
        self._text = text
        self._plain: dict[str, Any] = _unshared(parse(text.encode(), where))

    @property
    def active(self) -> str:
        """Name of the stack for pipelines that name none."""
        return str(self._plain.get("active", "local"))

    def section(self, name: str) -> dict[str, Any]:
        """Return what the file itself says in a section: nothing of what is built in."""
        return dict(self._plain.get(name) or {})

    def set(self, path: KeyPath, value: Any) -> None:
        """Set a value: JSON data at a key. A section that is not there is made."""
        missing = next((path[:depth] for depth in range(1, len(path)) if not _get(self._plain, path[:depth])), None)
        if missing is not None:
            for key in reversed(path[len(missing) :]):
                value = {key: value}
            path = missing
        _get(self._plain, path[:-1])[path[-1]] = value
        self._text = set_value(self._text, path, value, self._plain)

    def remove(self, path: KeyPath) -> None:
        """Remove a key; a section with nothing else in it goes with it."""
        while len(path) > 1 and len(_get(self._plain, path[:-1])) == 1:
            path = path[:-1]
        del _get(self._plain, path[:-1])[path[-1]]
        self._text = remove_value(self._text, path, self._plain)

    def rename(self, path: KeyPath, new: str) -> None:
        """Give a key another name, in its place."""
        mapping = _get(self._plain, path[:-1])
        items = [(new if key == path[-1] else key, value) for key, value in mapping.items()]
        mapping.clear()
        mapping.update(items)
        self._text = rename_key(self._text, path, new)

    def text(self) -> str:
        """Return the changed text.

        :raises StackError: if the changed file is not valid, or would say something else than was meant.
        """
        if not self._says_what_was_meant():
            raise StackError(
                f"{self.where}: a command cannot change it, since parts of it refer to each other (anchors, merge "
                "keys). Change it by hand."
            )
        read_document(self._text.encode(), self.where)
        return self._text

    def _says_what_was_meant(self) -> bool:
        try:
            return parse(self._text.encode(), self.where) == self._plain
        except StackError:
            return False


@contextmanager
def editing(path: Path) -> Iterator[Draft]:
    """Change a stack file in a ``with`` block; it is made when it is not there.

    Nothing is written when the block raises, or changes nothing. Two writers wait for each other.

    :raises StackError: if the file is not valid before or after, or cannot be written.
    """
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            before = path.read_bytes().decode() if path.exists() else None
            draft = Draft(_NEW if before is None else before, str(path))
            yield draft
            after = draft.text()
            if after != before:
                _replace(path, after)
    except UnicodeDecodeError as error:
        raise StackError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise StackError(f"{path}: cannot be written: {error.strerror or error}.") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # The folder itself is locked, so that no lock file lies beside the DAGs.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    prefix = f".{path.name}-"
    for left in path.parent.glob(f"{prefix}*{_UNFINISHED}"):  # of a writer that was killed: the lock is ours
        left.unlink(missing_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=_UNFINISHED, dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            # The Airflow components that read it run as other users often.
            os.fchmod(descriptor, path.stat().st_mode & 0o7777 if path.exists() else 0o644)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _get(document: Mapping[str, Any], path: KeyPath) -> Any:
    found: Any = document
    for key in path:
        found = found.get(key)
    return found


def _unshared(value: Any) -> Any:
    """Return a copy in which no two places are one object, as they are where an anchor is used."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value
