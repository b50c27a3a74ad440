"""Logs of jobs in Cloud Logging: one entry for each line of each machine, some of them late."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_stepops.errors import TransientServiceError
from airflow_stepops.jobs.protocol import LogChunk

#: Most entries of one answer.
_PAGE = 1000
#: An entry that comes so many nanoseconds after younger ones is still found …
_LATE = 60 * 10**9
#: … among so many of the last entries: what is looked at again each time stays two pages.
_LOOKED_AT_AGAIN = 2000
#: The first machine, whose lines come as they are.
_FIRST = "workerpool0-0"

#: Makes one call of entries.list: body of the request → answer.
Fetch = Callable[[dict[str, Any]], Mapping[str, Any]]


class LogReader:
    """Reads one job's log once, from a place on to what is there now.

    :param cursor: JSON: ``since``, the time before which nothing is looked for any more; ``seen``, the entries
        from then on that were handed on, as time and id; ``part``, an entry of which some lines were handed on, and how
        many.
    """

    def __init__(self, job_id: str, cursor: str) -> None:
        told: dict[str, Any] = json.loads(cursor) if cursor else {}
        self._since: int = told.get("since", 0)
        self._seen = {(at, entry) for at, entry in told.get("seen", ())}
        self._part: dict[tuple[int, str], int] = {(at, entry): count for at, entry, count in told.get("part", ())}
        self._filter = (
            f'resource.type="ml_job" AND resource.labels.job_id="{job_id}" AND resource.labels.task_name!="service"'
        )
        if self._since:
            self._filter += f' AND timestamp>="{_written(self._since)}"'
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._token = ""
        self._is_last_page = False
        self.cursor = cursor

    @property
    def over(self) -> bool:
        """Whether all that was there is handed on."""
        return self._is_last_page and not self._waiting

    def read(self, limit: int, fetch: Fetch) -> LogChunk:
        """Return at most so many lines.

        :raises TransientServiceError: if there is no answer for now, and no line to hand on.
        """
        lines: list[str] = []
        while len(lines) < limit and not self.over:
            if not self._waiting:
                try:
                    self._next_page(fetch)
                except TransientServiceError:
                    if not lines:
                        raise
                    break
                continue
            entry = self._waiting[0]
            key = _key(entry)
            found = _lines(entry)[self._part.pop(key, 0) :]
            room = limit - len(lines)
            lines += found[:room]
            if len(found) > room:
                self._part[key] = len(_lines(entry)) - len(found) + room
            else:
                self._waiting.popleft()
                self._seen.add(key)
        self._forget_old()
        self.cursor = self._place()
        return LogChunk(lines, self.cursor, not self.over)

    def _next_page(self, fetch: Fetch) -> None:
        asked = {"filter": self._filter, "orderBy": "timestamp asc", "pageSize": _PAGE}
        answer = fetch({**asked, "pageToken": self._token} if self._token else asked)
        self._waiting.extend(entry for entry in answer.get("entries", ()) if _key(entry) not in self._seen)
        # A page may be empty and not be the last one.
        self._token = answer.get("nextPageToken", "")
        self._is_last_page = not self._token

    def _forget_old(self) -> None:
        newest = sorted(self._seen)[-_LOOKED_AT_AGAIN:]
        if not newest:
            return
        too_many = len(newest) < len(self._seen)
        self._since = max(self._since, newest[-1][0] - _LATE, newest[0][0] if too_many else 0)
        self._seen = {key for key in self._seen if key[0] >= self._since}

    def _place(self) -> str:
        if not self._seen and not self._part:
            return ""
        part = [[*key, count] for key, count in self._part.items()]
        return json.dumps({"since": self._since, "seen": sorted(self._seen), "part": part})


class Pace:
    """Keeps the calls of a process to a project under the quota of Cloud Logging: 60 reads a minute for all of it.

    :param seconds: between two calls, in the long run.
    :param burst: calls that may be made at once after a rest.
    """

    def __init__(self, seconds: float = 1.5, burst: int = 20) -> None:
        self._seconds = seconds
        self._burst = burst
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, longest: float) -> None:
        """Wait for the turn.

        :param longest: seconds; who would have to wait for longer is sent away, to not hold up a thread.
        :raises TransientServiceError: if the turn is farther away.
        """
        with self._lock:
            now = time.monotonic()
            turn = max(self._next, now - self._burst * self._seconds)
            if turn - now > longest:
                raise TransientServiceError("the quota of Cloud Logging, 60 reads a minute, is used up for now")
            self._next = turn + self._seconds
        time.sleep(max(0.0, turn - now))


def _lines(entry: Mapping[str, Any]) -> list[str]:
    """Return the lines of an entry; those of other machines than the first name their own."""
    payload = entry.get("jsonPayload", {})
    text = entry.get("textPayload", payload.get("message"))
    if not isinstance(text, str):
        text = json.dumps(payload, ensure_ascii=False)
    machine = entry.get("resource", {}).get("labels", {}).get("task_name", _FIRST)
    prefix = "" if machine == _FIRST else f"[{machine}] "
    return [f"{prefix}{line.rstrip()}" for line in text.rstrip("\r\n").split("\n")]


def _key(entry: Mapping[str, Any]) -> tuple[int, str]:
    """Return what an entry is known by: nanoseconds since 1970 and its id, which is unique for one time only."""
    moment, _, fraction = entry["timestamp"].removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())
    return seconds * 10**9 + int(fraction.ljust(9, "0")[:9] or 0), entry["insertId"]


def _written(at: int) -> str:
    seconds, nanoseconds = divmod(at, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
