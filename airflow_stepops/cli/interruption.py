"""What signals do to a command that has something to stop first."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from airflow_stepops.cli.main import INTERRUPTED

#: Ctrl-C, a CI that cancels, a terminal that is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Let every signal that asks for the end of this process raise ``KeyboardInterrupt``."""
    with _handled_by(signal.default_int_handler):
        yield


class Interruption:
    """Notes that this process was asked to end, for it to do so in order; a second Ctrl-C ends it at once.

    :param first: called from the handler of the first signal.
    :param second: called from the handler of a later SIGINT, before the process ends.
    """

    def __init__(self, first: Callable[[], None], second: Callable[[], None]) -> None:
        self.requested = False
        self._first = first
        self._second = second

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle signals."""
        with _handled_by(self._handle):
            yield

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = True
            self._first()
        elif number == signal.SIGINT:  # a CI sends SIGTERM some seconds after SIGINT: it means the same
            try:
                self._second()
            finally:
                os._exit(INTERRUPTED)


@contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    # nohup ignores SIGHUP for those whom it starts.
    numbers = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
