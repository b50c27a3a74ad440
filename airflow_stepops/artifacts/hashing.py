"""SHA-256 beside the reading and writing: in a thread of its own, so that a second core does it."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK = 8 * 1024 * 1024
#: Buffers smaller than this are hashed at once: handing them to a thread would cost more.
_SMALL = 256 * 1024


class HashingWriter:
    """A write-only binary file that counts and hashes what goes through it.

    Buffers must not be changed before :meth:`finish`.

    :param file: where the bytes go.
    """

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stepops-hash")
        self._last: Future[None] | None = None
        self.size = 0

    def write(self, data: Any) -> int:
        """Write bytes, or anything contiguous with the buffer protocol; return their number."""
        view = memoryview(data)
        if view.nbytes == 0:
            return 0
        view = view.cast("B")
        if view.nbytes < _SMALL:
            self._wait()
            self._hash.update(view)
            self._file.write(view)
        else:
            for start in range(0, view.nbytes, _BLOCK):
                block = view[start : start + _BLOCK]
                self._wait()
                self._last = self._pool.submit(self._hash.update, block)
                self._file.write(block)
        self.size += view.nbytes
        return view.nbytes

    def finish(self) -> str:
        """Return the hex digest of all that was written."""
        self._wait()
        self._pool.shutdown()
        return self._hash.hexdigest()

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()
            self._last = None

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.size

    def close(self) -> None:
        """Do nothing: whoever opened the file closes it."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return False."""
        return False

    def seekable(self) -> bool:
        """Return False."""
        return False


def hash_file(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
