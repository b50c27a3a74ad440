"""What Azure ML says of a job, in the words of the protocol.

The job itself (Azure Resource Manager) has its status; times and the error are in the details of its run (run history).
"""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from airflow_stepops.clouds.exit_codes import SIGNALLED, killed_by
from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.protocol import JobState, JobStatus

#: Azure ML hears nothing of the job for the moment. It may come back.
SILENT = "NotResponding"

#: The other states go on too, also what Azure ML does not say yet: Running, Finalizing, NotResponding, Unknown.
_STATES = {
    "NotStarted": JobState.PENDING,
    "Queued": JobState.PENDING,
    "Provisioning": JobState.PENDING,
    "Preparing": JobState.PENDING,
    "Starting": JobState.PENDING,
    "Paused": JobState.PENDING,
    "CancelRequested": JobState.STOPPING,
    "Completed": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,
    "Canceled": JobState.STOPPED,
}

#: ``User process 'python' exited with status code 1.``, ``container … failed with status code `137` ``.
_EXIT = re.compile(r"(?:status|exit)[ _]code\W{1,4}?(-?\d+)", re.IGNORECASE)

#: Words in an error's codes and message → the kind of end. The first that fits.
_REASONS = (
    (re.compile(r"pre-?empt|evicted|low.?priority node", re.I), EndKind.PREEMPTED),
    (re.compile(r"quota|AllocationFailed|SkuNotAvailable|insufficient|not enough capacity|OverconstrainedA", re.I),
     EndKind.CAPACITY),
    (re.compile(r"out.?of.?memory|\bOOM|oom.?kill|low on memory", re.I), EndKind.INFRASTRUCTURE),
    (re.compile(r"disk ?full|no space left", re.I), EndKind.INFRASTRUCTURE),
    (re.compile(r"ImagePull|pull\w* (docker |container )?image|docker pull|manifest unknown|image\b.*not found|"
                r"ImageBuild|environment preparation failed", re.I), EndKind.IMAGE),
    (re.compile(r"authoriz|permission|forbidden|denied|identity not found|ManagedIdentity", re.I), EndKind.PERMISSION),
    (re.compile(r"time(d)? ?-?out|exceeded the (maximum|limit)|max\w* (run|duration)", re.I), EndKind.TIMEOUT),
)  # fmt: skip


def job_status(job: Mapping[str, Any], details: Mapping[str, Any] | None = None) -> JobStatus:
    """Return the status of a job.

    :param job: the JobBase.
    :param details: of its run, for a job that has begun.
    """
    properties, told = job["properties"], details or {}
    name = str(properties.get("status") or "NotStarted")
    state, kind, exit_code = _STATES.get(name, JobState.RUNNING), None, None
    codes, message = _error(told)
    started_at, ended_at = _time(told.get("startTimeUtc")), _time(told.get("endTimeUtc"))
    reason = _first_line(message)
    if state is JobState.SUCCEEDED:
        exit_code, reason = 0, ""
    elif state is JobState.FAILED:
        kind, exit_code = _failure(codes, message)
        reason = reason or " ".join(codes) or "Azure ML says no reason"
        if exit_code is not None and exit_code < 0:
            reason = f"{reason.rstrip('.')}: {killed_by(-exit_code)[1]}"
    elif state is JobState.STOPPED:
        kind = EndKind.CANCELLED
        if _ran_too_long(properties, started_at, ended_at):
            state, kind = JobState.FAILED, EndKind.TIMEOUT
            reason = reason or "Azure ML stopped it: it ran longer than it may (limits.timeout)"
        elif (found := _by_words(codes, message)) in (EndKind.PREEMPTED, EndKind.CAPACITY, EndKind.TIMEOUT):
            state, kind = JobState.FAILED, found
    return JobStatus(
        str(job["name"]),
        state,
        detail="" if state.ended else _spoken(name),
        kind=kind,
        reason=reason if state.ended else "",
        exit_code=exit_code,
        created_at=_time((job.get("systemData") or {}).get("createdAt")),
        started_at=started_at,
        ended_at=ended_at if state.ended else None,
        metadata=_facts(properties),
    )


def lost(status: JobStatus, seconds: float, now: float) -> JobStatus:
    """Return the status of a job that is given up, after Azure ML has heard nothing of it for so long.

    :param now: Unix time by Azure's clock.
    """
    reason = f"Azure ML has heard nothing of the job for {seconds / 60:.0f} minutes ({SILENT}); it is being stopped"
    return dataclasses.replace(
        status, state=JobState.FAILED, detail="", kind=EndKind.INFRASTRUCTURE, reason=reason, ended_at=now
    )


def has_ended(details: Mapping[str, Any]) -> bool:
    """Whether a run has ended, by its details."""
    return _STATES.get(str(details.get("status")), JobState.RUNNING).ended


def _failure(codes: list[str], message: str) -> tuple[EndKind, int | None]:
    by_words = _by_words(codes, _first_line(message))
    found = _EXIT.search(message)
    if by_words is EndKind.PREEMPTED or found is None:
        is_theirs = "UserError" in codes and "ServiceError" not in codes
        return by_words or (EndKind.INVALID_REQUEST if is_theirs else EndKind.INFRASTRUCTURE), None
    code = int(found[1])
    number = code - SIGNALLED if code > SIGNALLED else -code
    if number == signal.SIGTERM:  # what our runtime ends with when it is asked to
        return EndKind.PREEMPTED, code
    if number > 0:
        return killed_by(number)[0], -number
    return EndKind.USER_CODE, code


def _by_words(codes: list[str], message: str) -> EndKind | None:
    text = " ".join([*codes, message])
    return next((kind for words, kind in _REASONS if words.search(text)), None)


def _ran_too_long(properties: Mapping[str, Any], started_at: float | None, ended_at: float | None) -> bool:
    """Whether a cancelled job was so by its timeout: Azure ML just cancels it."""
    longest = (properties.get("limits") or {}).get("timeout")
    if started_at is None or ended_at is None or not longest:
        return False
    return ended_at - started_at >= TypeAdapter(timedelta).validate_python(longest).total_seconds()


def _error(details: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the codes of an error, the outer one first, and its message."""
    error = (details.get("error") or {}).get("error") or {}
    return [code for code in _codes(error) if code], str(error.get("message") or "").strip()


def _codes(error: Mapping[str, Any]) -> Iterator[str]:
    yield str(error.get("code") or "")
    inner = error.get("innerError")
    if isinstance(inner, Mapping):
        yield from _codes(inner)


def _first_line(message: str) -> str:
    """Return the part of a message that is Azure ML's own: the last lines of the container's log follow it."""
    return message.partition("\n")[0].partition(" Please check log file")[0].strip()


def _spoken(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _facts(properties: Mapping[str, Any]) -> dict[str, Any]:
    resources = properties.get("resources") or {}
    facts = {
        "compute": str(properties.get("computeId") or "").rpartition("/")[2],
        "instance_type": resources.get("instanceType"),
        "instance_count": resources.get("instanceCount"),
        "tier": (properties.get("queueSettings") or {}).get("jobTier"),
        "experiment": properties.get("experimentName"),
    }
    return {key: value for key, value in facts.items() if value}


def _time(moment: str | None) -> float | None:
    """Return a Unix time; Azure gives up to seven digits of a second, and times of UTC that do not say so."""
    if not moment:
        return None
    found = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", moment))
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
