"""The artifact store in a folder of this machine, or one that all machines mount."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from airflow_stepops.artifacts.store import Backend
from airflow_stepops.errors import ArtifactError, ArtifactExistsError, ArtifactNotFoundError, cannot_write

#: Ends the names of files that are still written; they begin with a dot.
_UNFINISHED = ".part"
#: What says that there is no file: as in a bucket, a folder is not an object, and nothing is below one.
_NOTHING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


class Folder(Backend):
    """Objects as files.

    :param path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str, uri: str) -> bytes:
        """Return the file's bytes."""
        with _read_errors(uri):
            return (self._path / key).read_bytes()

    def put(self, key: str, uri: str, data: bytes) -> None:
        """Write beside, then move into place."""
        with self.writer(key, uri) as file:
            file.write(data)

    def put_if_absent(self, key: str, uri: str, data: bytes) -> None:
        """Write beside, then link into place, which fails when there is something."""
        with _errors(uri):
            unfinished, file = _new_file(self._path, key)
            try:
                with file:
                    file.write(data)
                os.link(unfinished, self._path / key)
            except FileExistsError as error:
                raise ArtifactExistsError(f"there is something at {uri} already") from error
            finally:
                unfinished.unlink(missing_ok=True)

    def size(self, key: str, uri: str) -> int:
        """Return the file's length."""
        with _read_errors(uri):
            path = self._path / key
            if path.is_dir():
                raise FileNotFoundError(uri)
            return path.stat().st_size

    def list(self, folder: str, uri: str) -> dict[str, float]:
        """Return the files below with their times, without those that are still written."""
        found: dict[str, float] = {}
        with _errors(uri):
            for path in (self._path / folder).rglob("*"):
                if path.name.startswith(".") and path.name.endswith(_UNFINISHED):
                    continue
                with suppress(FileNotFoundError):  # deleted meanwhile
                    state = path.stat()
                    if stat.S_ISREG(state.st_mode):
                        found[path.relative_to(self._path).as_posix()] = state.st_mtime
        return found

    def delete(self, key: str, uri: str) -> None:
        """Delete the file."""
        with _errors(uri), suppress(*_NOTHING):
            (self._path / key).unlink()

    @contextmanager
    def reader(self, key: str, uri: str) -> Iterator[BinaryIO]:
        """Open the file."""
        with _read_errors(uri):
            file = (self._path / key).open("rb")
        with file:
            yield file

    @contextmanager
    def writer(self, key: str, uri: str) -> Iterator[BinaryIO]:
        """Write beside, and move into place at the end."""
        with _errors(uri):
            unfinished, file = _new_file(self._path, key)
        try:
            yield cast("BinaryIO", _Unfinished(file, uri))
            with _errors(uri):
                file.close()
                unfinished.replace(self._path / key)
        finally:
            unfinished.unlink(missing_ok=True)
            with suppress(OSError):  # of what is in its buffer, and on no disk any more
                file.close()


class _Unfinished:
    """A write-only binary file whose errors name the object."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._file = file
        self._uri = uri

    def write(self, data: Any) -> int:
        """Write bytes."""
        with _errors(self._uri):
            return self._file.write(data)

    def flush(self) -> None:
        """Do nothing: the end does it."""


def _new_file(root: Path, key: str) -> tuple[Path, BinaryIO]:
    target = root / key
    path = target.with_name(f".{target.name[:100]}-{os.urandom(8).hex()}{_UNFINISHED}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return path, path.open("xb")
    except OSError as error:
        if error.errno in _NO_RIGHT:
            raise ArtifactError(cannot_write(root, error)) from error
        raise


@contextmanager
def _read_errors(uri: str) -> Iterator[None]:
    with _errors(uri):
        try:
            yield
        except _NOTHING as error:
            raise ArtifactNotFoundError(f"there is nothing at {uri}") from error


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{uri}: {error.strerror or error}") from error
