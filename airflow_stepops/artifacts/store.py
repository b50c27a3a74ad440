"""The artifact store: objects under one root URI, in a folder, S3, Cloud Storage or Blob Storage."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from airflow_stepops.errors import ArtifactError, ArtifactNotFoundError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_SCHEMES = ("file", "s3", "gs", "az", "abfs", "abfss")
#: What no store takes in keys: control characters, backslashes, and surrogates, which UTF-8 does not have.
_NEVER = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff]")


class Backend(ABC):
    """Objects by key, which is their path below the root. Errors name the URI that is given beside."""

    @abstractmethod
    def get(self, key: str, uri: str) -> bytes:
        """Return the bytes."""

    @abstractmethod
    def put(self, key: str, uri: str, data: bytes) -> None:
        """Write: whole or not at all."""

    @abstractmethod
    def put_if_absent(self, key: str, uri: str, data: bytes) -> None:
        """Write what must not exist yet."""

    @abstractmethod
    def size(self, key: str, uri: str) -> int:
        """Return the length in bytes."""

    @abstractmethod
    def list(self, folder: str, uri: str) -> dict[str, float]:
        """Return the keys below a folder, ``""`` for all, each with the Unix time at which it was written."""

    @abstractmethod
    def delete(self, key: str, uri: str) -> None:
        """Delete; no error when there is nothing."""

    @abstractmethod
    def reader(self, key: str, uri: str) -> AbstractContextManager[BinaryIO]:
        """Open for reading."""

    @abstractmethod
    def writer(self, key: str, uri: str) -> AbstractContextManager[BinaryIO]:
        """Open for writing; the object appears when the block ends without an error."""


class ArtifactStore:
    """Objects by their full URI, all of them under one root.

    :param root: URI such as ``s3://bucket/prefix`` or ``file:///data``.
    :param store: an open obstore store at the root; default: opened by what the environment says.
    :raises ArtifactError: when the URI is not one of a supported store.
    """

    def __init__(self, root: str, store: ObjectStore | None = None) -> None:
        parts = urlsplit(root)
        if parts.scheme not in _SCHEMES or (parts.scheme == "file") == bool(parts.netloc):
            raise ArtifactError(f"artifact store {root!r}: give a URI that starts with one of {', '.join(_SCHEMES)}.")
        path = parts.path.strip("/")
        if parts.query or parts.fragment or (parts.scheme == "file" and not (path and parts.path.startswith("/"))):
            raise ArtifactError(f"artifact store {root!r}: give the whole path of a folder, without '?' and '#'.")
        if _NEVER.search(root) or (path and not _is_key(path)):
            raise ArtifactError(f"artifact store {root!r}: the path has a part that no object can have.")
        self.root = root.rstrip("/")
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._backend = self._open(store)

    def __contains__(self, uri: str) -> bool:
        """Whether a URI names an object under the root, which need not be there."""
        try:
            self._key(uri)
        except ArtifactError:
            return False
        return True

    def get(self, uri: str) -> bytes:
        """Return an object's bytes.

        :raises ArtifactNotFoundError: if there is none.
        """
        return self._backend.get(self._key(uri), uri)

    def put(self, uri: str, data: bytes) -> None:
        """Write an object: whole or not at all."""
        self._backend.put(self._key(uri), uri, data)

    def put_if_absent(self, uri: str, data: bytes) -> None:
        """Write an object that must not exist yet; of two writers at the same time, one succeeds.

        :raises ArtifactExistsError: if it does.
        """
        self._backend.put_if_absent(self._key(uri), uri, data)

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
        return self._backend.size(self._key(uri), uri)

    def list(self, prefix: str) -> list[str]:
        """Return the URIs of all objects below a folder, which may be the root, sorted."""
        return sorted(self.written(prefix))

    def written(self, prefix: str) -> dict[str, float]:
        """Return when each object below a folder was written: its URI → Unix time. As quick as :meth:`list`."""
        folder = prefix.rstrip("/")
        key = "" if folder == self.root else self._key(folder)
        return {f"{self.root}/{found}": time for found, time in self._backend.list(key, prefix).items()}

    def delete(self, uri: str) -> None:
        """Delete an object; no error when there is none."""
        self._backend.delete(self._key(uri), uri)

    def reader(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Open an object for reading, in a ``with`` block.

        :raises ArtifactNotFoundError: if there is none.
        """
        return self._backend.reader(self._key(uri), uri)

    def writer(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Open an object for writing; it appears when the ``with`` block ends without an error.

        Buffers given to it must not change until then.
        """
        return self._backend.writer(self._key(uri), uri)

    def local_path(self, uri: str) -> Path | None:
        """Return the file of an object where the store is a folder of this machine, else ``None``."""
        return None if self._folder is None else self._folder / self._key(uri)

    def _open(self, store: ObjectStore | None) -> Backend:
        if self._folder is not None:
            from airflow_stepops.artifacts.folder import Folder

            return Folder(self._folder)
        from airflow_stepops.artifacts.bucket import Bucket

        return Bucket(self.root, store)

    def _key(self, uri: str) -> str:
        """Return the path below the root.

        :raises ArtifactError: for what is not below it.
        """
        key = uri.removeprefix(f"{self.root}/")
        if key == uri or not _is_key(key):
            raise ArtifactError(f"{uri!r} is not an object under the artifact store {self.root!r}.")
        return key


def _is_key(text: str) -> bool:
    return not _NEVER.search(text) and not any(part in ("", ".", "..") for part in text.split("/"))


_openers: list[Callable[[str], ArtifactStore | None]] = []


def register_opener(opener: Callable[[str], ArtifactStore | None]) -> None:
    """Let a function say which store a URI is in; it is asked before the environment is.

    :param opener: returns an open store, or ``None``. The one registered last is asked first.
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
