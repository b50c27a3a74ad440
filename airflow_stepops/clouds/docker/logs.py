"""Reading a container's log on from a place, without loss and without repetition.

An engine sends frames: number of a stream, time stamp, and text that may be less than a line (Podman cuts at 8 KiB and
at each flush, Docker at 16 KiB). It finds a place by time only, and many frames may have one time: Podman's stamps are
whole seconds. Its followed logs lose lines, so a log is read as it is now, again and again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_stepops.clouds.docker.states import ENDED
from airflow_stepops.clouds.lines import next_line
from airflow_stepops.jobs.protocol import LogChunk

if TYPE_CHECKING:
    from docker.models.containers import Container

_HEADER = struct.Struct(">BxxxL")
_READ_BYTES = 1 << 16

#: Number of the stream, time stamp, text.
Frame = tuple[int, str, bytes]


@dataclass(frozen=True)
class Place:
    """A place in a log: after a frame that left no stream in the middle of a line, and some lines on from there.

    :param stamp: time stamp of that frame, ``""`` for the start of the log.
    :param frames: how many frames have this stamp, that one included.
    :param lines: how many lines further.
    """

    stamp: str = ""
    frames: int = 0
    lines: int = 0

    @classmethod
    def parse(cls, cursor: str) -> Place:
        """Read a cursor."""
        if not cursor:
            return cls()
        stamp, frames, lines = cursor.split(" ")
        return cls(stamp, int(frames), int(lines))

    def __str__(self) -> str:
        return f"{self.stamp} {self.frames} {self.lines}"


class LogReader:
    """Reads what a log holds now, after a cursor.

    :param container: just inspected.
    :param cursor: ``""``, or that of an earlier answer.
    """

    def __init__(self, container: Container, cursor: str) -> None:
        self.cursor = cursor
        start = Place.parse(cursor)
        since = int(_time(start.stamp)) - 1 if start.stamp else 0
        self._lines = lines_after(_frames(container, since), start, complete=container.status in ENDED)

    def read(self, limit: int) -> LogChunk:
        """Return at most so many lines."""
        lines: list[str] = []
        for line, place in self._lines:
            lines.append(line)
            self.cursor = str(place)
            if len(lines) == limit:
                return LogChunk(lines, self.cursor, more=True)
        return LogChunk(lines, self.cursor)


def lines_after(frames: Iterable[Frame], start: Place, *, complete: bool) -> Iterator[tuple[str, Place]]:
    """Yield each line after a place, and the place after the line.

    :param frames: of the log, from some time before the place on.
    :param complete: whether nothing comes after them: what a stream left without an end of line is a line then.
    """
    stamp, same = start.stamp, start.frames
    place = Place(stamp, same)
    to_skip = start.lines
    begun: dict[int, bytes] = {}
    for stream, at, text in _frames_after(frames, start):
        same = same + 1 if at == stamp else 1
        stamp = at
        lines = _whole_lines(begun, stream, text)
        for number, line in enumerate(lines, 1):
            whole = number == len(lines) and not begun
            place = Place(stamp, same) if whole else Place(place.stamp, place.frames, place.lines + 1)
            if to_skip:
                to_skip -= 1
            else:
                yield line, place
    for text in begun.values() if complete else ():
        place = Place(place.stamp, place.frames, place.lines + 1)
        if to_skip:
            to_skip -= 1
        elif found := next_line(text, 0, complete=True):
            yield found[0], place


def _whole_lines(begun: dict[int, bytes], stream: int, text: bytes) -> list[str]:
    """Add text to what a stream has begun, and take the lines that are whole."""
    data = begun.pop(stream, b"") + text
    lines: list[str] = []
    start = 0
    while found := next_line(data, start, complete=False):
        line, start = found
        lines.append(line)
    if start < len(data):
        begun[stream] = data[start:]
    return lines


def _frames_after(frames: Iterable[Frame], place: Place) -> Iterator[Frame]:
    left = place.frames
    for frame in frames:
        if left and frame[1] == place.stamp:
            left -= 1
        elif not left or _time(frame[1]) > _time(place.stamp):
            left = 0
            yield frame


def _frames(container: Container, since: int) -> Iterator[Frame]:
    """Yield the frames of a log from a second on.

    The SDK's own call drops the number of the stream, without which lines cannot be put together.
    """
    api = container.client.api
    url = f"{api.base_url}/v{api.api_version}/containers/{container.id}/logs"
    parameters = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": 0, "tail": "all", "since": since}
    with closing(api.get(url, params=parameters, stream=True, timeout=api.timeout)) as response:
        response.raise_for_status()
        buffer = b""
        for data in response.iter_content(_READ_BYTES):
            buffer += data
            start = 0
            while len(buffer) - start >= _HEADER.size:
                stream, size = _HEADER.unpack_from(buffer, start)
                end = start + _HEADER.size + size
                if len(buffer) < end:
                    break
                stamp, _, text = buffer[start + _HEADER.size : end].partition(b" ")
                yield stream, stamp.decode(), text
                start = end
            buffer = buffer[start:]


def _time(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
