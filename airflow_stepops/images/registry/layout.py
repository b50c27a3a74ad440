"""A repository on disk: a folder in the OCI image layout, which ``skopeo`` and others read as ``oci:<folder>``."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from airflow_stepops.errors import RegistryError, cannot_write
from airflow_stepops.images.cache_folder import discard
from airflow_stepops.images.manifests import OCI_INDEX, Descriptor, encode_json, read_json
from airflow_stepops.images.registry.blobs import (
    CHUNK,
    Blob,
    BytesBlob,
    check_digest,
    digest_of,
    is_digest,
    verified,
)
from airflow_stepops.images.registry.repository import ImageRepository
from airflow_stepops.settings import expanded

#: How references of images in such folders begin.
SCHEME = "oci-layout:"

_WRITING = ".writing-"
#: No blob is written for so many seconds.
_DAY = 24 * 3600
_TAG = "org.opencontainers.image.ref.name"


class LayoutRepository(ImageRepository):
    """A folder in the OCI image layout, made when something is put into it. Several processes may write at once.

    :param path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.folder = expanded(path).absolute()

    @property
    def registry(self) -> str:
        """Always ``""``."""
        return ""

    @property
    def path(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def requests(self) -> int:
        """Always 0."""
        return 0

    def reference(self, digest: str) -> str:
        """Return ``oci-layout:<folder>@<digest>``."""
        return f"{SCHEME}{self.folder}@{digest}"

    def blob_path(self, digest: str) -> Path:
        """Return where a blob or manifest lies.

        :raises RegistryError: if the text is not a digest.
        """
        if not is_digest(digest):
            raise RegistryError(f"{self.name}: {digest!r} is not a digest (sha256: and 64 hex digits).")
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def has_blob(self, digest: str) -> bool:
        """Return whether the blob is there."""
        return self.blob_path(digest).is_file()

    def put_blob(self, blob: Blob) -> int:
        """Store a blob unless it is there, and return the number of bytes that were written."""
        path = self.blob_path(blob.digest)
        if path.is_file():
            return 0
        self._make_folder(path.parent)
        hashed = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_WRITING, delete=False) as copy:
            try:
                with blob.open() as source:
                    while chunk := source.read(CHUNK):
                        hashed.update(chunk)
                        copy.write(chunk)
                check_digest(f"sha256:{hashed.hexdigest()}", blob.digest, f"blob for {self.name}")
                copy.close()
                Path(copy.name).chmod(0o644)
                Path(copy.name).replace(path)
            except BaseException:
                with suppress(FileNotFoundError):
                    Path(copy.name).unlink()
                raise
        return blob.size

    def get_blob(self, digest: str) -> AbstractContextManager[BinaryIO]:
        """Open a blob; reading to its end raises DigestMismatchError when the bytes are wrong.

        :raises RegistryError: if it is not there.
        """
        path = self.blob_path(digest)
        if not path.is_file():
            raise RegistryError(f"{self.name} has no blob {digest}: let the image be built again.")
        return verified(_chunks(path), digest, str(path))

    def mount_blob(self, digest: str, from_repository: str) -> bool:  # noqa: ARG002 - of the interface
        """Return whether the blob is there: a folder has no other repositories."""
        return self.has_blob(digest)

    def head_manifest(self, reference: str) -> str | None:
        """Return the digest of a manifest by its tag or digest, ``None`` when there is none."""
        if is_digest(reference):
            return reference if self.has_blob(reference) else None
        for entry in self._entries():
            if _tag_of(entry) == reference and self.has_blob(entry["digest"]):
                return str(entry["digest"])
        return None

    def get_manifest(self, reference: str) -> tuple[str, bytes]:
        """Return media type and bytes of a manifest by its tag or digest.

        :raises RegistryError: if it is not there.
        """
        digest = self.head_manifest(reference)
        if digest is None:
            raise RegistryError(f"{self.name} has no image {reference}: let it be built again.")
        data = self.get_document(Descriptor("", digest, self.blob_path(digest).stat().st_size))
        return str(read_json(data, self.reference(digest)).get("mediaType", "")), data

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> str:
        """Store a manifest under a tag or its digest, and return its digest."""
        digest = digest_of(data)
        self.put_blob(BytesBlob.of(data))
        entry: dict[str, Any] = {"mediaType": media_type, "size": len(data), "digest": digest}
        if not is_digest(reference):
            entry["annotations"] = {_TAG: reference}
        else:
            check_digest(digest, reference, f"manifest for {self.name}")
        with FileLock(self.folder / ".lock"):
            kept = [old for old in self._entries() if not _same_place(old, entry)]
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*kept, entry]}
            _write(self.folder / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _write(self.folder / "index.json", encode_json(index))
        for left in self.leftovers():
            discard(left)
        return digest

    def leftovers(self) -> list[Path]:
        """Return what processes left that were killed while they wrote."""
        found = []
        for folder in (self.folder, self.folder / "blobs" / "sha256"):
            for path in folder.glob(f"{_WRITING}*"):
                with suppress(FileNotFoundError):
                    if path.lstat().st_mtime < time.time() - _DAY:
                        found.append(path)
        return found

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise RegistryError(cannot_write(self.folder, error)) from error

    def _entries(self) -> list[dict[str, Any]]:
        try:
            manifests = read_json((self.folder / "index.json").read_bytes(), "it").get("manifests")
        except FileNotFoundError:
            return []
        except RegistryError as error:
            raise self._not_an_index(str(error)) from error
        if not isinstance(manifests, list):
            raise self._not_an_index("it has no list of manifests.")
        return [entry for entry in manifests if isinstance(entry, dict) and is_digest(str(entry.get("digest")))]

    def _not_an_index(self, problem: str) -> RegistryError:
        return RegistryError(
            f"{self.folder / 'index.json'} is not the index of an OCI image layout: {problem} Delete the folder, its "
            "images are built again."
        )


def _tag_of(entry: dict[str, Any]) -> Any:
    annotations = entry.get("annotations")
    return annotations.get(_TAG) if isinstance(annotations, dict) else None


def _same_place(old: dict[str, Any], new: dict[str, Any]) -> bool:
    tags = [_tag_of(entry) for entry in (old, new)]
    return tags[0] == tags[1] and (tags[0] is not None or old["digest"] == new["digest"])


def _write(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_WRITING, delete=False) as copy:
        copy.write(data)
    Path(copy.name).chmod(0o644)
    Path(copy.name).replace(path)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk
