"""Reading lines of a growing file."""

from __future__ import annotations

from pathlib import Path

from airflow_stepops.clouds.lines import next_line
from airflow_stepops.jobs.protocol import LogChunk

_READ_BYTES = 1 << 18


def read_lines(path: Path, cursor: str, limit: int, *, complete: bool) -> LogChunk:
    """Return at most ``limit`` lines from a byte offset on.

    :param cursor: the offset as text, ``""`` for the start.
    :param complete: whether nothing is written any more.
    """
    offset = int(cursor or 0)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(_READ_BYTES)
            at_end = not file.read(1)
    except FileNotFoundError:
        return LogChunk((), cursor)
    lines: list[str] = []
    start = 0
    while len(lines) < limit and (found := next_line(data, start, complete=complete and at_end)):
        line, start = found
        lines.append(line)
    return LogChunk(lines, str(offset + start), more=bool(lines) and (start < len(data) or not at_end))
