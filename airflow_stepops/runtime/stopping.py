"""What happens when a job is asked to stop: an exception in its step, a grace period, the end of the process."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

#: Seconds for the step's own clean-up after SIGTERM, and for writing the result.
GRACE_SECONDS = 25.0
#: A second SIGTERM this much after the first ends the process; sooner, it is the same request twice.
_IMPATIENCE_SECONDS = 1.0
_HANDLED = 0

_current: Stopping | None = None


class StepStopped(BaseException):
    """The step is asked to end (SIGTERM). Not an ``Exception``, so that steps do not catch it."""


class Stopping:
    """Looks after SIGTERM in a ``with`` block: raises :class:`StepStopped` in the main thread, once.

    A thread sees the signal even while the main thread is in native code. When the step does not end in time, the
    thread gives up and ends the process.

    :param give_up: called before the process ends, with a traceback of where the main thread is.
    :param grace_seconds: the time that the step has.
    """

    def __init__(self, give_up: Callable[[str], None], grace_seconds: float = GRACE_SECONDS) -> None:
        self._give_up = give_up
        self._grace = grace_seconds
        self._raised = self._settled = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._main = threading.main_thread().ident

    def __enter__(self) -> Self:
        global _current
        _current = self
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._raise)
        os.register_at_fork(after_in_child=_forget)
        threading.Thread(target=self._watch, name="stepops-stop", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _forget()
        os.close(self._writer)  # ends the thread

    def settle(self) -> None:
        """See :func:`settle`."""
        self._settled = True

    def _raise(self, _signal: int, _frame: FrameType | None) -> None:
        if self._raised:
            return
        self._raised = True
        os.write(self._writer, bytes([_HANDLED]))  # the wakeup above may have been taken over, as asyncio does
        if not self._settled:
            raise StepStopped("the job was asked to stop (SIGTERM)")

    def _watch(self) -> None:
        asked_at: float | None = None
        while True:
            left = None if asked_at is None else asked_at + self._grace - time.monotonic()
            ready, _, _ = select.select([self._reader], [], [], None if left is None else max(0.0, left))
            if not ready:
                return self._end()
            data = os.read(self._reader, 1)
            if not data:
                return None
            if asked_at is None and data[0] in (signal.SIGTERM, _HANDLED):
                asked_at = time.monotonic()
            elif (
                asked_at is not None and data[0] == signal.SIGTERM and time.monotonic() > asked_at + _IMPATIENCE_SECONDS
            ):
                return self._end()

    def _end(self) -> None:
        frame = sys._current_frames().get(self._main or 0)
        try:
            self._give_up("".join(traceback.format_stack(frame)))
        finally:
            os._exit(128 + signal.SIGTERM)


def settle() -> None:
    """Raise :class:`StepStopped` no more: how the step ended is known, and is only to be written down.

    The grace period still bounds the time that this takes after SIGTERM.
    """
    if _current is not None:
        _current.settle()


def _forget() -> None:
    """Let SIGTERM end the process at once: of children, which pools end so, and after the result was written."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
