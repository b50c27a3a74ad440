"""Content that is addressed by its sha256, and reading it with the digest checked."""

from __future__ import annotations

import hashlib
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airflow_stepops.errors import DigestMismatchError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

CHUNK = 1 << 20

#: Manifests and configs are no larger, nor is anything else that is read into memory: registries take 4 MiB at most.
DOCUMENT_BYTES = 8 << 20

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Return whether the text is a sha256 digest (``sha256:`` and 64 hex digits)."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes) -> str:
    """Return ``sha256:<hex>`` of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Blob(ABC):
    """A piece of content that can be read as often as needed.

    :param digest: ``sha256:<hex>`` of its bytes.
    :param size: their number.
    """

    digest: str
    size: int

    @abstractmethod
    def open(self) -> AbstractContextManager[BinaryIO]:
        """Open the content for reading from its start."""


@dataclass(frozen=True)
class BytesBlob(Blob):
    """A blob in memory."""

    digest: str
    size: int
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> BytesBlob:
        """Make the blob of some bytes."""
        return cls(digest_of(data), len(data), data)

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Open the content for reading from its start."""
        return io.BytesIO(self.data)


@dataclass(frozen=True)
class FileBlob(Blob):
    """A blob in a file that nobody changes. If something has, that is an error, and the file is deleted."""

    digest: str
    size: int
    path: Path

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the content; reading to its end raises DigestMismatchError when the bytes are wrong."""
        try:
            with self.path.open("rb") as file:
                yield verified(iter(partial(file.read, CHUNK), b""), self.digest, str(self.path))
        except DigestMismatchError:
            self.path.unlink(missing_ok=True)
            raise


def verified(chunks: Iterator[bytes], digest: str, origin: str) -> BinaryIO:
    """Return a stream that raises at its end when its bytes are not those of the digest.

    :param chunks: the content.
    :param digest: what it must hash to.
    :param origin: where it comes from, for the error.
    """
    return io.BufferedReader(_VerifiedChunks(chunks, digest, origin), CHUNK)


class _VerifiedChunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes], digest: str, origin: str) -> None:
        self._chunks = chunks
        self._digest = digest
        self._origin = origin
        self._hash = hashlib.sha256()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        # Ends the generator, and with it the connection that it reads from.
        if isinstance(self._chunks, Generator):
            self._chunks.close()
        super().close()

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                check_digest(f"sha256:{self._hash.hexdigest()}", self._digest, self._origin)
                return 0
            self._hash.update(chunk)
            self._rest = memoryview(chunk)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def check_digest(found: str, expected: str, origin: str) -> None:
    """Compare the digest of what was read with the one it must have.

    :raises DigestMismatchError: if they differ.
    """
    if found != expected:
        raise DigestMismatchError(
            f"{origin}: the bytes are {found}, not {expected}. They were damaged on the way or where they are kept: "
            "try again; if it stays, delete the image there and let it be pushed anew."
        )
