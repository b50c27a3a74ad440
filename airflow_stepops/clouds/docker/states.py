"""What an engine says of a container, in the words of the protocol."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_stepops.clouds.exit_codes import SIGNALLED, killed_by
from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.protocol import JobState, JobStatus

ENDED = frozenset({"exited", "dead", "removing", "stopped"})
_PENDING = frozenset({"created", "configured", "initialized"})
#: Docker's own codes: the engine, the command, and a command that is not there.
_CANNOT_START = frozenset({125, 126, 127})
#: Our runtime ends so when it was asked to, the second where the step did not let go within its grace period.
_STOPPED = frozenset({SIGNALLED + signal.SIGTERM, SIGNALLED + signal.SIGALRM})


def status(name: str, inspected: Mapping[str, Any]) -> JobStatus:
    """Return the status of an inspected container."""
    state = inspected["State"]
    created_at = _time(inspected.get("Created"))
    started_at = _time(state.get("StartedAt"))
    phase = str(state.get("Status", "")).lower()
    if phase in _PENDING:
        return JobStatus(name, JobState.PENDING, detail=phase, created_at=created_at)
    if phase not in ENDED:
        running = JobState.STOPPING if phase == "stopping" else JobState.RUNNING
        return JobStatus(name, running, created_at=created_at, started_at=started_at)
    code = int(state.get("ExitCode", 0))
    ended, kind, reason = _end(code, bool(state.get("OOMKilled")), str(state.get("Error") or ""))
    return JobStatus(
        name,
        ended,
        kind=kind,
        reason=reason,
        exit_code=SIGNALLED - code if code > SIGNALLED and code not in _STOPPED else code,
        created_at=created_at,
        started_at=started_at,
        ended_at=_time(state.get("FinishedAt")),
    )


def listed(name: str, entry: Mapping[str, Any]) -> JobStatus:
    """Return the status of a container in a list, which has neither exit code nor times."""
    phase = str(entry["State"]).lower()
    if phase in _PENDING:
        return JobStatus(name, JobState.PENDING)
    # How it ended is known when it is described.
    return JobStatus(name, JobState.STOPPED if phase in ENDED else JobState.RUNNING)


def _end(code: int, out_of_memory: bool, error: str) -> tuple[JobState, EndKind | None, str]:
    if code == 0:
        return JobState.SUCCEEDED, None, ""
    if out_of_memory:
        return JobState.FAILED, EndKind.INFRASTRUCTURE, "killed by signal 9 (SIGKILL): it ran out of memory"
    if code in _CANNOT_START:
        return JobState.FAILED, EndKind.IMAGE, error or f"exit code {code}: the image cannot run python"
    if code in _STOPPED:
        return JobState.STOPPED, EndKind.CANCELLED, "somebody asked for its end"
    if code > SIGNALLED:
        return JobState.FAILED, *killed_by(code - SIGNALLED)
    return JobState.FAILED, EndKind.USER_CODE, error or f"exit code {code}"


def _time(text: Any) -> float | None:
    """Return Unix time; engines write nanoseconds, and the year 1 for never."""
    if not isinstance(text, str) or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text).timestamp()
