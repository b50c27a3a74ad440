"""Bringing blobs from one repository to another: not at all, by a mount, or as a stream that is never on disk."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

from airflow_stepops.images.manifests import Descriptor
from airflow_stepops.images.registry.blobs import Blob
from airflow_stepops.images.registry.repository import ImageRepository


@dataclass(frozen=True)
class RemoteBlob(Blob):
    """A blob that is read from a repository when it is sent."""

    digest: str
    size: int
    repository: ImageRepository

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Open the content for reading from its start."""
        return self.repository.get_blob(self.digest)


def copy_blob(blob: Descriptor, source: ImageRepository, target: ImageRepository) -> int:
    """Make sure that a blob is in the target, and return the number of bytes that were sent."""
    if source.name == target.name or target.has_blob(blob.digest):
        return 0
    if source.registry and source.registry == target.registry and target.mount_blob(blob.digest, source.path):
        return 0
    return target.put_blob(RemoteBlob(blob.digest, blob.size, source))
