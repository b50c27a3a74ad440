"""BLAKE3 beside the reading and writing: in a thread of its own, so that a second core does it."""

from __future__ import annotations

import os
import queue
import threading
from types import TracebackType
from typing import Any, BinaryIO, Self

from blake3 import blake3

_BLOCK = 8 * 1024 * 1024
_READ_BYTES = 1024 * 1024
#: Blocks that may wait for the hash, which bounds the memory that they hold.
_WAITING = 8
#: Buffers smaller than this are hashed at once: handing them to a thread would cost more.
_SMALL = 256 * 1024


class HashingWriter:
    """A write-only binary file that counts and hashes what goes through it, to be used in a ``with`` block.

    Buffers must not be changed before :meth:`finish`.

    :param file: where the bytes go.
    """

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = blake3()
        self._blocks: queue.Queue[memoryview | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self.size = 0

    def write(self, data: Any) -> int:
        """Write bytes, or anything contiguous with the buffer protocol; return their number."""
        view = memoryview(data)
        if view.nbytes == 0:
            return 0
        view = view.cast("B")
        if view.nbytes < _SMALL and self._thread is None:
            self._hash.update(view)
            self._file.write(view)
        else:
            self._write_blocks(view)
        self.size += view.nbytes
        return view.nbytes

    def _write_blocks(self, view: memoryview) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._hash_blocks, name="stepops-hash", daemon=True)
            self._thread.start()
        for start in range(0, view.nbytes, _BLOCK):
            block = view[start : start + _BLOCK]
            self._blocks.put(block)
            self._file.write(block)

    def _hash_blocks(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._hash.update(block)

    def finish(self) -> str:
        """Return the hex digest of all that was written."""
        if self._thread is not None:
            self._blocks.put(None)
            self._thread.join()
            self._thread = None
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.finish()

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


class FileHash:
    """Hashes a file in a thread, while others read it.

    :param file: a file of the operating system; its position does not matter and does not change.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self._digest = ""
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="stepops-hash", daemon=True)
        self._thread.start()

    def digest(self) -> str:
        """Return the hex digest, when it is there.

        :raises OSError: if the file cannot be read.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._digest

    def _run(self) -> None:
        try:
            self._digest, _ = hash_file(self._descriptor)
        except OSError as error:
            self._error = error


def hash_file(descriptor: int) -> tuple[str, int]:
    """Return the hex digest of a file of the operating system, and its size in bytes.

    :param descriptor: an open one; its position does not matter and does not change.
    :raises OSError: if the file cannot be read.
    """
    found = blake3()
    offset = 0
    while block := os.pread(descriptor, _READ_BYTES, offset):
        found.update(block)
        offset += len(block)
    return found.hexdigest(), offset
