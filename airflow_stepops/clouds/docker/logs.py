"""Reading a container's log on from a place, without loss and without repetition."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from airflow_stepops.clouds.docker.states import ENDED
from airflow_stepops.jobs.protocol import LogChunk

if TYPE_CHECKING:
    from docker.models.containers import Container


class LogReader:
    """Reads what a log holds now. A cursor is the number of lines before it.

    Engines find a place in a log by time only. Podman's times are whole seconds, and its followed logs lose lines, so
    the log is read from its start and the lines before the cursor are left out.
    """

    def __init__(self, container: Container, cursor: str) -> None:
        self._read = int(cursor or 0)
        container.reload()
        frames = container.logs(stream=True, follow=False)
        self._lines = islice(_lines(frames, complete=container.status in ENDED), self._read, None)

    @property
    def cursor(self) -> str:
        """Where the next line is."""
        return str(self._read)

    def read(self, limit: int) -> LogChunk:
        """Return at most so many lines."""
        lines = list(islice(self._lines, limit))
        self._read += len(lines)
        return LogChunk(lines, self.cursor, more=len(lines) == limit)


def _lines(frames: Iterator[bytes], *, complete: bool) -> Iterator[str]:
    """Yield the lines of a log; one without an end only when nothing can come after it."""
    rest = b""
    for frame in frames:
        *whole, rest = (rest + frame).split(b"\n")
        yield from map(_text, whole)
    if rest and complete:
        yield _text(rest)


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
