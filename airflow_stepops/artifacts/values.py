"""Saving and loading values: a materializer picks the form, the store keeps the bytes, a digest holds them together."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from airflow_stepops.artifacts import modules
from airflow_stepops.artifacts.hashing import FileHash, HashingWriter
from airflow_stepops.artifacts.materializers import materializer_for, materializer_named
from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.artifacts.store import ArtifactStore, open_store
from airflow_stepops.errors import ArtifactError, IntegrityError

_BLOCK = 8 * 1024 * 1024


def save(value: Any, store: ArtifactStore, prefix: str) -> ArtifactReference:
    """Save a value and return the reference to it.

    :param prefix: URI of the object, without the extension, which the materializer gives.
    :raises ArtifactError: when the value cannot be saved, naming its type.
    """
    materializer = materializer_for(value)
    uri = f"{prefix}{materializer.extension}"
    kind = modules.display_name(type(value))
    with store.writer(uri) as file, HashingWriter(file) as writer:
        try:
            metadata = materializer.save(value, cast("BinaryIO", writer))
        except ArtifactError:
            raise
        except Exception as error:
            raise ArtifactError(
                f"a {kind} could not be saved to {uri} by the materializer {materializer.name!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        digest = writer.finish()
    return ArtifactReference(uri, materializer.name, kind, digest, writer.size, metadata)


def load(reference: ArtifactReference, store: ArtifactStore | None = None) -> Any:
    """Load the value of a reference. What comes back has the digest of what was saved.

    :param store: the store that the object must be in; default: the one that its URI belongs to.
    :raises ArtifactNotFoundError: if the object is gone.
    :raises IntegrityError: if its bytes are not those that were saved.
    :raises ArtifactError: if the bytes cannot be read as the value, for want of a library for example.
    """
    store = store or open_store(reference.uri)
    materializer = materializer_named(reference.materializer)
    with _file_of(reference, store) as (file, digest):
        # Reading data runs none of it, so its digest is made at the same time; a wrong one returns nothing.
        if digest is None or materializer.runs_code:
            _check(reference, digest)
            digest = None
        try:
            value = materializer.load(file, reference.metadata)
        except Exception as error:
            _check(reference, digest)
            missing = " Add its package to Image(requirements=[…])." if isinstance(error, ModuleNotFoundError) else ""
            raise ArtifactError(
                f"{reference.uri} could not be loaded by the materializer {materializer.name!r}: "
                f"{type(error).__name__}: {error}.{missing}"
            ) from error
        _check(reference, digest)
        return value


@contextmanager
def opened(reference: ArtifactReference, store: ArtifactStore) -> Iterator[BinaryIO]:
    """Open the object of a reference, in a ``with`` block, after its digest was checked.

    :return: a file of the operating system, at its start.
    :raises ArtifactNotFoundError: if the object is gone.
    :raises IntegrityError: if its bytes are not those that were saved.
    """
    with _file_of(reference, store) as (file, digest):
        _check(reference, digest)
        yield file


def copied(reference: ArtifactReference, store: ArtifactStore, folder: str) -> ArtifactReference:
    """Copy what a reference of another store names into a store, and return the reference to the copy.

    :param folder: URI of the folder for the copy, in the store. What is there already is not copied again.
    :raises ArtifactNotFoundError: if the object is gone.
    :raises IntegrityError: if its bytes are not those that were saved.
    """
    uri = f"{folder}/{reference.blake3}{PurePosixPath(reference.uri).suffix}"
    if not store.exists(uri):
        with opened(reference, open_store(reference.uri)) as source, store.writer(uri) as file:
            while block := source.read(_BLOCK):
                file.write(block)
    return replace(reference, uri=uri)


@contextmanager
def _file_of(reference: ArtifactReference, store: ArtifactStore) -> Iterator[tuple[BinaryIO, FileHash | None]]:
    """Yield an open file with the object's bytes, and its digest in the making unless that has been checked."""
    with store.reader(reference.uri) as source:
        if store.local_path(reference.uri) is not None:
            yield source, FileHash(source)
            return
        with _temporary_folder(reference) as folder:
            path = folder / "value.artifact"
            with _disk_errors(reference), path.open("wb") as copy, HashingWriter(copy) as writer:
                while block := source.read(_BLOCK):
                    writer.write(block)
                _compare(reference, writer.finish())
            with path.open("rb") as file:
                yield file, None


@contextmanager
def _temporary_folder(reference: ArtifactReference) -> Iterator[Path]:
    with _disk_errors(reference):
        folder = tempfile.TemporaryDirectory(prefix="stepops-")
    with folder as path:
        yield Path(path)


@contextmanager
def _disk_errors(reference: ArtifactReference) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{reference.uri} ({reference.size:,} bytes) could not be copied to this machine's temporary folder: "
            f"{error.strerror or error}. Ask for a larger disk, or let TMPDIR name a folder on one."
        ) from error


def _check(reference: ArtifactReference, digest: FileHash | None) -> None:
    if digest is None:
        return
    try:
        found = digest.digest()
    except OSError as error:
        raise ArtifactError(f"{reference.uri} could not be read: {error.strerror or error}") from error
    _compare(reference, found)


def _compare(reference: ArtifactReference, found: str) -> None:
    if found != reference.blake3:
        raise IntegrityError(
            f"{reference.uri} has changed since it was saved: its blake3 is {found}, not {reference.blake3}. "
            "Run the step that wrote it again."
        )
