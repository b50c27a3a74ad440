"""Logs of jobs: files in Blob Storage that grow, one for each process, at addresses that run history signs.

A file is read by parts from where the last reading ended; a signed address that has ended is asked for anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from airflow_stepops.clouds.azure.states import has_ended
from airflow_stepops.clouds.lines import next_line
from airflow_stepops.errors import TransientServiceError
from airflow_stepops.jobs.protocol import LogChunk

#: ``user_logs/std_log.txt``, ``user_logs/std_log_process_00.txt``, ``…_process_01.txt``.
_FILE = re.compile(r"user_logs/std_log(?:_(.*))?\.txt")
_PART = 1 << 18

#: Gives the details of a run anew.
Details = Callable[[], Mapping[str, Any]]


class LogReader:
    """Reads what a job's log holds now, after a cursor.

    :param details: gives the details of the run, with addresses that are signed anew.
    :param client: without credentials: the addresses have their own.
    :param cursor: JSON: file → how many of its bytes were handed on.
    """

    def __init__(self, details: Details, client: httpx.Client, cursor: str) -> None:
        self.cursor = cursor
        self._details = details
        self._client = client
        self._places: dict[str, int] = json.loads(cursor) if cursor else {}
        self._look()

    def read(self, limit: int) -> LogChunk:
        """Return at most so many lines; those of other processes than the first name theirs.

        :raises TransientServiceError: if there is no answer for now, and no line to hand on.
        """
        lines: list[str] = []
        more = False
        for number, (file, process) in enumerate(self._files):
            prefix = f"[{process}] " if number else ""
            try:
                for line, after in self._lines(file):
                    if len(lines) == limit:
                        more = True
                        break
                    lines.append(f"{prefix}{line}")
                    self._places[file] = after
            except TransientServiceError:
                if not lines:
                    raise
                more = True
            if more:
                break
        self.cursor = json.dumps(self._places, sort_keys=True) if self._places else ""
        return LogChunk(lines, self.cursor, more)

    def _look(self) -> None:
        details = self._details()
        # What the run says of its end was so before the files are read: they are complete then.
        self._complete = has_ended(details)
        self._addresses: Mapping[str, str] = details.get("logFiles") or {}
        named = [(file, found[1] or "") for file in self._addresses if (found := _FILE.fullmatch(file))]
        self._files = sorted(named, key=lambda item: (len(item[1]), item[1]))  # 2 before 10

    def _lines(self, file: str) -> Iterator[tuple[str, int]]:
        """Yield each line after the file's place, and the place after the line."""
        start = self._places.get(file, 0)
        data = b""
        while True:
            got, size = self._part(file, start + len(data))
            data += got
            is_all = start + len(data) >= size
            used = 0
            while found := next_line(data, used, complete=self._complete and is_all):
                line, used = found
                yield line, start + used
            start, data = start + used, data[used:]
            if is_all:
                return

    def _part(self, file: str, start: int) -> tuple[bytes, int]:
        """Return bytes of a file from a place on, and the size that the file has now."""
        response = self._get(file, start)
        if response.status_code in (401, 403):  # the address has ended
            self._look()
            response = self._get(file, start)
        if response.status_code == 416:  # nothing after this place
            return b"", start
        if response.status_code == 404:  # it is named before it is there
            return b"", start
        if response.status_code == 206:
            return response.content, int(response.headers["Content-Range"].rpartition("/")[2])
        if response.status_code == 200:  # an empty file has no parts
            return response.content[start:], len(response.content)
        raise TransientServiceError(f"the log {file} cannot be read: Blob Storage answers {response.status_code}")

    def _get(self, file: str, start: int) -> httpx.Response:
        headers = {"Range": f"bytes={start}-{start + _PART - 1}", "x-ms-version": "2023-11-03"}
        try:
            return self._client.get(self._addresses[file], headers=headers)
        except httpx.TransportError as error:
            # Not the address: whoever has it can read the log.
            raise TransientServiceError(f"the log {file} cannot be read: {type(error).__name__}") from None
