"""Logs of jobs in CloudWatch: one stream for each machine, which appears when the container first prints."""

from __future__ import annotations

import json
from typing import Any

from airflow_stepops.jobs.protocol import LogChunk

#: Longest page of GetLogEvents.
_PAGE = 10_000


def read_logs(client: Any, group: str, job: str, cursor: str, limit: int) -> LogChunk:
    """Return lines of all streams of a job after a cursor.

    :param client: of CloudWatch Logs.
    :param cursor: JSON: stream → the token of CloudWatch after the last line that was read.
    """
    try:
        streams = _streams(client, group, job)
    except client.exceptions.ResourceNotFoundException:  # nothing has printed anything yet
        return LogChunk((), cursor)
    tokens: dict[str, str] = json.loads(cursor) if cursor else {}
    lines: list[str] = []
    more = False
    for stream in streams:
        room = limit - len(lines)
        if room <= 0:
            more = True
            break
        answer = client.get_log_events(
            logGroupName=group,
            logStreamName=stream,
            startFromHead=True,
            limit=min(room, _PAGE),
            **({"nextToken": tokens[stream]} if stream in tokens else {}),
        )
        prefix = f"[{_machine(stream)}] " if len(streams) > 1 else ""
        lines += [f"{prefix}{event['message'].rstrip()}" for event in answer["events"]]
        # At the end of a stream the token is the one that was given.
        more = more or (bool(answer["events"]) and answer["nextForwardToken"] != tokens.get(stream))
        tokens[stream] = answer["nextForwardToken"]
    return LogChunk(lines, json.dumps(tokens, sort_keys=True), more)


def _streams(client: Any, group: str, job: str) -> list[str]:
    pages = client.get_paginator("describe_log_streams").paginate(logGroupName=group, logStreamNamePrefix=f"{job}/")
    return sorted(stream["logStreamName"] for page in pages for stream in page["logStreams"])


def _machine(stream: str) -> str:
    """Return the machine's name: ``algo-1`` of ``<job>/algo-1-1700000000``."""
    return stream.rpartition("/")[2].rpartition("-")[0]
