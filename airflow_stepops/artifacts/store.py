"""The artifact store: objects under one root URI, in a folder, S3, Cloud Storage or Blob Storage."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from airflow_stepops.errors import ArtifactError, ArtifactExistsError, ArtifactNotFoundError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_SCHEMES = ("file", "s3", "gs", "az", "abfs", "abfss", "memory")
_UPLOAD_BYTES = 16 * 1024 * 1024


class ArtifactStore:
    """Objects by their full URI, all of them under one root.

    :param root: URI such as ``s3://bucket/prefix`` or ``file:///data``, without a slash at its end.
    :param store: an open obstore store at the root; default: opened by what the environment says.
    :raises ArtifactError: when the URI is not one of a supported store.
    """

    def __init__(self, root: str, store: ObjectStore | None = None) -> None:
        parts = urlsplit(root)
        if parts.scheme not in _SCHEMES or (parts.scheme == "file" and parts.netloc):
            raise ArtifactError(f"artifact store {root!r}: give a URI that starts with one of {', '.join(_SCHEMES)}.")
        self.root = root.rstrip("/")
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._opened = store

    def get(self, uri: str) -> bytes:
        """Return an object's bytes.

        :raises ArtifactNotFoundError: if there is none.
        """
        key = self._key(uri)
        if self._folder is not None:
            with _file_errors(uri):
                return (self._folder / key).read_bytes()
        import obstore

        with _store_errors(uri):
            return bytes(obstore.get(self._store, key).bytes())

    def put(self, uri: str, data: bytes) -> None:
        """Write an object: whole or not at all."""
        key = self._key(uri)
        if self._folder is not None:
            with self.writer(uri) as file:
                file.write(data)
            return
        import obstore

        with _store_errors(uri):
            obstore.put(self._store, key, data)

    def put_if_absent(self, uri: str, data: bytes) -> None:
        """Write an object that must not exist yet; of two writers at the same time, one succeeds.

        :raises ArtifactExistsError: if it does.
        """
        key = self._key(uri)
        if self._folder is not None:
            with _file_errors(uri), _new_file(self._folder / key) as (file, path):
                file.write(data)
                file.flush()
                os.link(path, self._folder / key)  # fails when it exists, and shows the whole content or nothing
            return
        import obstore

        with _store_errors(uri):
            obstore.put(self._store, key, data, mode="create")

    def exists(self, uri: str) -> bool:
        """Whether there is an object."""
        try:
            self.size(uri)
        except ArtifactNotFoundError:
            return False
        return True

    def size(self, uri: str) -> int:
        """Return an object's length in bytes.

        :raises ArtifactNotFoundError: if there is none.
        """
        key = self._key(uri)
        if self._folder is not None:
            with _file_errors(uri):
                return (self._folder / key).stat().st_size
        import obstore

        with _store_errors(uri):
            return int(obstore.head(self._store, key)["size"])

    def list(self, prefix: str) -> list[str]:
        """Return the URIs of all objects below a folder, sorted."""
        key = self._key(prefix)
        if self._folder is not None:
            found = (self._folder / key).rglob("*")
            return sorted(
                f"{self.root}/{path.relative_to(self._folder).as_posix()}" for path in found if path.is_file()
            )
        import obstore

        with _store_errors(prefix):
            pages = obstore.list(self._store, prefix=key)
            return sorted(f"{self.root}/{entry['path']}" for page in pages for entry in page)

    def delete(self, uri: str) -> None:
        """Delete an object; no error when there is none."""
        key = self._key(uri)
        if self._folder is not None:
            with _file_errors(uri):
                (self._folder / key).unlink(missing_ok=True)
            return
        import obstore

        with _store_errors(uri):
            obstore.delete(self._store, key)

    @contextmanager
    def reader(self, uri: str) -> Iterator[BinaryIO]:
        """Open an object for reading.

        :raises ArtifactNotFoundError: if there is none.
        """
        key = self._key(uri)
        if self._folder is not None:
            with _file_errors(uri):
                file = (self._folder / key).open("rb")
            with file:
                yield file
            return
        import obstore

        with _store_errors(uri):
            yield cast("BinaryIO", obstore.open_reader(self._store, key))

    @contextmanager
    def writer(self, uri: str) -> Iterator[BinaryIO]:
        """Open an object for writing; it appears when the block ends without an error."""
        key = self._key(uri)
        if self._folder is not None:
            with _file_errors(uri), _new_file(self._folder / key) as (file, path):
                yield cast("BinaryIO", file)
                file.flush()
                path.replace(self._folder / key)
            return
        import obstore

        with _store_errors(uri), tempfile.TemporaryFile() as spool:
            yield cast("BinaryIO", spool)
            spool.seek(0)
            obstore.put(self._store, key, spool, chunk_size=_UPLOAD_BYTES)

    def local_path(self, uri: str) -> Path | None:
        """Return the file of an object where the store is a folder of this machine, else ``None``."""
        return None if self._folder is None else self._folder / self._key(uri)

    @property
    def _store(self) -> ObjectStore:
        if self._opened is None:
            from obstore.store import from_url

            with _store_errors(self.root):
                self._opened = from_url(self.root)
        return self._opened

    def _key(self, uri: str) -> str:
        """Return the path below the root.

        :raises ArtifactError: for what is not below it.
        """
        key = uri.removeprefix(f"{self.root}/")
        if (
            key == uri
            or not key
            or any(part in ("", ".", "..") for part in key.split("/"))
            or "\\" in key
            or "\0" in key
        ):
            raise ArtifactError(f"{uri!r} is not an object under the artifact store {self.root!r}.")
        return key


_openers: list[Callable[[str], ArtifactStore | None]] = []


def register_opener(opener: Callable[[str], ArtifactStore | None]) -> None:
    """Let a function say which store a URI is in; it is asked before the environment is.

    :param opener: returns an open store, or ``None``.
    """
    if opener not in _openers:
        _openers.insert(0, opener)


def open_store(uri: str) -> ArtifactStore:
    """Return the store that holds an object, for references without a store at hand."""
    for opener in _openers:
        store = opener(uri)
        if store is not None:
            return store
    root, found, _ = uri.partition("/runs/")
    return ArtifactStore(root if found else uri.rpartition("/")[0])


@contextmanager
def _new_file(target: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A temporary file beside its target, gone afterwards unless it was moved."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _file_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactNotFoundError(f"there is nothing at {uri}") from error
    except FileExistsError as error:
        raise ArtifactExistsError(f"there is something at {uri} already") from error
    except OSError as error:
        raise ArtifactError(f"{uri}: {error.strerror or error}") from error


@contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    from obstore import exceptions

    try:
        yield
    except (FileNotFoundError, exceptions.NotFoundError) as error:
        raise ArtifactNotFoundError(f"there is nothing at {uri}") from error
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise ArtifactExistsError(f"there is something at {uri} already") from error
    except exceptions.BaseError as error:
        raise ArtifactError(f"{uri}: {str(error).splitlines()[0]}") from error
