"""Saving and loading values: a materializer picks the form, the store keeps the bytes, a digest holds them together."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from airflow_stepops.artifacts.hashing import HashingWriter, hash_file
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
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    with store.writer(uri) as file:
        writer = HashingWriter(file)
        try:
            metadata = materializer.save(value, cast("BinaryIO", writer))
        except (ArtifactError, OSError):
            raise
        except Exception as error:
            raise ArtifactError(
                f"a {kind} could not be saved by the materializer {materializer.name!r}: "
                f"{type(error).__name__}: {error}. Return something else, or register a materializer for it."
            ) from error
        finally:
            digest = writer.finish()
    return ArtifactReference(uri, materializer.name, kind, digest, writer.size, metadata)


def load(reference: ArtifactReference, store: ArtifactStore | None = None) -> Any:
    """Load the value of a reference. What comes back has the digest of what was saved.

    :param store: the store that the object must be in; default: the one that its URI belongs to.
    :raises ArtifactNotFoundError: if the object is gone.
    :raises IntegrityError: if its bytes are not those that were saved.
    """
    store = store or open_store(reference.uri)
    materializer = materializer_named(reference.materializer)
    with _file_of(reference, store) as (path, checked):
        if not checked and materializer.runs_code:
            _check(reference, hash_file(path))
            checked = True
        if checked:
            return materializer.load(path, reference.metadata)
        # Reading data runs none of it, so the digest is made at the same time; a wrong one returns nothing.
        with ThreadPoolExecutor(1, thread_name_prefix="stepops-hash") as pool:
            digest = pool.submit(hash_file, path)
            try:
                value = materializer.load(path, reference.metadata)
            except Exception:
                _check(reference, digest.result())
                raise
            _check(reference, digest.result())
            return value


@contextmanager
def _file_of(reference: ArtifactReference, store: ArtifactStore) -> Iterator[tuple[Path, bool]]:
    """Yield a file with the object's bytes, and whether its digest has been checked."""
    path = store.local_path(reference.uri)
    if path is not None:
        store.size(reference.uri)
        yield path, False
        return
    with store.reader(reference.uri) as source, tempfile.NamedTemporaryFile(suffix=".artifact") as file:
        writer = HashingWriter(cast("BinaryIO", file))
        try:
            while block := source.read(_BLOCK):
                writer.write(bytes(block))
            file.flush()
        finally:
            digest = writer.finish()
        _check(reference, digest)
        yield Path(file.name), True


def _check(reference: ArtifactReference, digest: str) -> None:
    if digest != reference.sha256:
        raise IntegrityError(
            f"{reference.uri} has changed since it was saved: its sha256 is {digest}, not {reference.sha256}. "
            "Run the step that wrote it again."
        )
