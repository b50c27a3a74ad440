"""Reading a container's log on from a place, without loss and without repetition."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_stepops.jobs.protocol import LogChunk

if TYPE_CHECKING:
    from docker.models.containers import Container


class LogReader:
    """Reads what a log holds now, after a cursor.

    Engines find a place by time only, and several lines may have one time, so a cursor is a time stamp and how many
    lines of that time were read: ``2026-01-31T12:00:00.123456789Z 3``.
    """

    def __init__(self, container: Container, cursor: str) -> None:
        self.cursor = cursor
        self._lines = _after(container, cursor)
        stamp, _, seen = cursor.partition(" ")
        self._stamp, self._seen = stamp, int(seen or 0)

    def read(self, limit: int) -> LogChunk:
        """Return at most so many lines."""
        lines: list[str] = []
        for stamp, line in self._lines:
            self._seen = self._seen + 1 if stamp == self._stamp else 1
            self._stamp = stamp
            lines.append(line)
            if len(lines) == limit:
                break
        if lines:
            self.cursor = f"{self._stamp} {self._seen}"
        return LogChunk(lines, self.cursor, more=len(lines) == limit)


def _after(container: Container, cursor: str) -> Iterator[tuple[str, str]]:
    stamp, _, seen = cursor.partition(" ")
    to_skip = int(seen or 0)
    since = {"since": _seconds(stamp)} if stamp else {}
    for at, line in _entries(container.logs(stream=True, timestamps=True, **since)):
        if stamp and at < stamp:
            continue
        if at == stamp and to_skip:
            to_skip -= 1
            continue
        yield at, line


def _entries(frames: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    """Yield time stamp and text of each line."""
    buffer = b""
    for frame in frames:
        buffer += frame
        *whole, buffer = buffer.split(b"\n")
        yield from map(_entry, whole)
    if buffer:
        yield _entry(buffer)


def _entry(line: bytes) -> tuple[str, str]:
    stamp, _, text = line.decode(errors="replace").partition(" ")
    return stamp, text.rstrip("\r")


def _seconds(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp())
