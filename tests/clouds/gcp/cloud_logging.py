"""Cloud Logging's entries.list: filters, pages that may be empty, entries that come late, a quota."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import Any

from tests.clouds.gcp.emulated import PROJECT, Answer, Call, error

_CLAUSE = re.compile(r'(resource\.type|resource\.labels\.\w+|timestamp)(=|!=|>=)"([^"]*)"')


class CloudLogging:
    """The entries of one project.

    :ivar quota: calls in a minute, ``None`` for as many as people like.
    :ivar empty_pages: how many of the next answers have a token for the next page and no entries.
    :ivar reads: answers with entries, or without, so far.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.quota: int | None = None
        self.empty_pages = 0
        self.reads = 0
        self.refused = 0
        self._calls: deque[float] = deque()
        self._pages: dict[str, str] = {}
        self._lock = threading.Lock()

    def write(self, job_id: str, machine: str, message: str, at: int | None = None, **payload: Any) -> None:
        """Add an entry.

        :param machine: such as ``workerpool0-0``, or ``service``.
        :param at: nanoseconds since 1970; default: now.
        :param payload: fields of the entry in the place of ``jsonPayload``.
        """
        labels = {"job_id": job_id, "task_name": machine, "project_id": PROJECT}
        entry = {
            "insertId": uuid.uuid4().hex[:16],
            "timestamp": written(time.time_ns() if at is None else at),
            "receiveTimestamp": written(time.time_ns()),
            "logName": f"projects/{PROJECT}/logs/{machine}",
            "resource": {"type": "ml_job", "labels": labels},
            "severity": "INFO",
            **(payload or {"jsonPayload": {"message": message, "levelname": "INFO", "attrs": {"tag": machine}}}),
        }
        with self._lock:
            self.entries.append(entry)

    def __call__(self, call: Call) -> Answer:
        """Answer a call."""
        asked = call.json
        if (call.method, call.path) != ("POST", "/v2/entries:list"):
            return error(404, "NOT_FOUND", f"{call.method} {call.path}")
        now = time.monotonic()
        while self._calls and self._calls[0] < now - 60:
            self._calls.popleft()
        if self.quota is not None and len(self._calls) >= self.quota:
            self.refused += 1
            return error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Read requests'")
        self._calls.append(now)
        self.reads += 1
        if asked["resourceNames"] != [f"projects/{PROJECT}"]:
            return error(403, "PERMISSION_DENIED", "Permission denied for all log views")
        if asked["orderBy"] != "timestamp asc" or not 0 < asked["pageSize"] <= 1000:
            return error(400, "INVALID_ARGUMENT", "order_by or page_size is not valid")
        clauses = [_CLAUSE.fullmatch(clause) for clause in asked["filter"].split(" AND ")]
        if None in clauses:
            return error(400, "INVALID_ARGUMENT", f"Unparseable filter: {asked['filter']}")
        return self._page(asked, [(clause[1], clause[2], clause[3]) for clause in clauses if clause])

    def _page(self, asked: dict[str, Any], clauses: list[tuple[str, str, str]]) -> Answer:
        with self._lock:
            found = sorted(
                (entry for entry in self.entries if all(_holds(entry, *clause) for clause in clauses)),
                key=lambda entry: (entry["timestamp"], entry["insertId"]),
            )
        after = ("", "")
        if "pageToken" in asked:
            of_filter, _, place = asked["pageToken"].partition("|")
            if of_filter != asked["filter"]:
                return error(400, "INVALID_ARGUMENT", "page_token does not belong to this filter")
            after = tuple(place.split(" "))  # type: ignore[assignment]
        found = [entry for entry in found if (entry["timestamp"], entry["insertId"]) > after]
        if self.empty_pages:
            self.empty_pages -= 1
            return 200, {"nextPageToken": f"{asked['filter']}|{' '.join(after)}"}
        page = found[: asked["pageSize"]]
        more = {}
        if len(found) > len(page):
            more = {"nextPageToken": f"{asked['filter']}|{page[-1]['timestamp']} {page[-1]['insertId']}"}
        return 200, {**({"entries": page} if page else {}), **more}


def written(at: int) -> str:
    """Return a time as Google writes it.

    :param at: nanoseconds since 1970.
    """
    seconds, nanoseconds = divmod(at, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def _holds(entry: dict[str, Any], field: str, operator: str, value: str) -> bool:
    if field == "resource.type":
        found = entry["resource"]["type"]
    elif field == "timestamp":
        found = entry["timestamp"]
    else:
        found = entry["resource"]["labels"].get(field.rpartition(".")[2])
    return {"=": found == value, "!=": found != value, ">=": found >= value}[operator]
