"""Writing an object to a cloud's store part by part: it appears when all of it is there, or never."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PART_BYTES = 16 * 1024 * 1024
#: Parts that travel at a time, and buffers that wait: together they bound the memory beside the value.
_PARTS_AT_A_TIME = 4
_WAITING = 4


class _AbandonedError(Exception):
    """Ends an upload whose bytes will not all come."""


class Upload:
    """A write-only binary file whose bytes travel while more are written.

    Buffers must not be changed before :meth:`finish`.
    """

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store = store
        self._key = key
        self._buffers: queue.Queue[Any] = queue.Queue(_WAITING)
        self._whole = False
        #: What the upload failed with, unless it was abandoned.
        self.error: BaseException | None = None
        # Not Thread.join(): one that a signal's exception interrupts takes the thread for ended (CPython before 3.13).
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="stepops-upload", daemon=True).start()

    def write(self, data: Any) -> int:
        """Hand bytes over.

        :raises Exception: what the upload failed with.
        """
        view = memoryview(data).cast("B")
        if view.nbytes and not self._put(view):
            self._ended.wait()
            raise self.error or RuntimeError("the upload ended before its bytes")
        return view.nbytes

    def flush(self) -> None:
        """Do nothing: bytes travel by themselves."""

    def finish(self) -> None:
        """Wait until the object is there.

        :raises Exception: what the upload failed with.
        """
        self._whole = True
        try:
            self._put(None)
            self._ended.wait()
        except BaseException:  # a job that is stopped: nothing may go on behind it
            self._whole = False
            self.abandon()
            raise
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        """End the upload; no object appears."""
        self._put(None)
        self._ended.wait()

    def _put(self, buffer: memoryview | None) -> bool:
        """Queue a buffer; return False when nobody takes it any more."""
        while not self._ended.is_set():
            try:
                self._buffers.put(buffer, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def _run(self) -> None:
        import obstore

        try:
            obstore.put(self._store, self._key, self._parts(), chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_A_TIME)
        except _AbandonedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised where the bytes come from
            self.error = error
        finally:
            self._ended.set()

    def _parts(self) -> Iterator[Any]:
        while (buffer := self._buffers.get()) is not None:
            yield buffer
        if not self._whole:
            raise _AbandonedError
