"""The one interface through which images are read and written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import BinaryIO

from airflow_stepops.errors import RegistryError
from airflow_stepops.images.manifests import Descriptor
from airflow_stepops.images.registry.blobs import DOCUMENT_BYTES, Blob


class ImageRepository(ABC):
    """One repository of a registry. Safe to use from several threads.

    Every method raises :class:`~airflow_stepops.errors.RegistryError` or one of its kinds, naming the registry, the
    repository and what to do.
    """

    @property
    @abstractmethod
    def registry(self) -> str:
        """Host of the registry, with its port where it has one; ``""`` for a folder."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Name of the repository in the registry, or the folder."""

    @property
    def name(self) -> str:
        """What people call it: ``host/path``, or the folder."""
        return f"{self.registry}/{self.path}" if self.registry else self.path

    @property
    @abstractmethod
    def requests(self) -> int:
        """Number of network requests made so far, 0 for what needs none."""

    @abstractmethod
    def reference(self, digest: str) -> str:
        """Return what a step operator is given to find the image with this digest."""

    def login(self) -> tuple[str, str] | None:
        """Return name and password for an engine that pulls with our credentials, ``None`` for an anonymous user."""
        return None

    @abstractmethod
    def has_blob(self, digest: str) -> bool:
        """Return whether the blob is there."""

    @abstractmethod
    def put_blob(self, blob: Blob) -> int:
        """Store a blob unless it is there, and return the number of bytes that were sent."""

    @abstractmethod
    def get_blob(self, digest: str) -> AbstractContextManager[BinaryIO]:
        """Open a blob; reading to its end raises DigestMismatchError when the bytes are wrong."""

    def get_document(self, descriptor: Descriptor) -> bytes:
        """Return a small blob whole, such as the config of an image.

        :raises RegistryError: if it is larger than described, or than any document is.
        """
        with self.get_blob(descriptor.digest) as stream:
            data = stream.read(min(descriptor.size, DOCUMENT_BYTES) + 1)
        if len(data) > min(descriptor.size, DOCUMENT_BYTES):
            raise RegistryError(
                f"{self.name}: blob {descriptor.digest} is no document of {descriptor.size} bytes: it is larger, or no "
                f"document at all (more than {DOCUMENT_BYTES})."
            )
        return data

    @abstractmethod
    def mount_blob(self, digest: str, from_repository: str) -> bool:
        """Make a blob of another repository of the same registry appear here.

        :param from_repository: path of the other repository, without the registry.
        :return: ``False`` when the registry does not do it: copy the blob.
        """

    @abstractmethod
    def head_manifest(self, reference: str) -> str | None:
        """Return the digest of a manifest by its tag or digest, ``None`` when there is none. One request."""

    @abstractmethod
    def get_manifest(self, reference: str) -> tuple[str, bytes]:
        """Return media type and bytes of a manifest by its tag or digest."""

    @abstractmethod
    def put_manifest(self, reference: str, media_type: str, data: bytes) -> str:
        """Store a manifest under a tag or its digest, and return its digest. Its blobs must be there already."""
