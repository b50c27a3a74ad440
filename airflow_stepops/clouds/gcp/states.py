"""What Vertex AI says of a job, in the words of the protocol."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_stepops.clouds.exit_codes import SIGNALLED, killed_by
from airflow_stepops.clouds.gcp.step_operator import LABEL
from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.protocol import JobState, JobStatus

_PREFIX = "JOB_STATE_"
_GOING_ON = {
    "QUEUED": JobState.PENDING,
    "PENDING": JobState.PENDING,
    "CANCELLING": JobState.STOPPING,
    # PAUSED and UPDATING come back, and so may what Vertex does not say yet.
}
#: States that are final. The others, new ones included, are not.
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")

#: ``The replica workerpool0-0 exited with a non-zero status of 1.``, ``… of 9(SIGKILL)``.
_EXIT = re.compile(r"non-zero status of (\d+)(?:\s*\((SIG\w+)\))?", re.IGNORECASE)

#: Words in a message → the kind of end. The first that fits.
_REASONS = (
    (re.compile(r"preempt|spot vm|reclaimed", re.I), EndKind.PREEMPTED),
    (
        re.compile(r"exceed\w* quota|quota metrics|resources are insufficient|stockout|RESOURCE_POOL_EXHAUSTED", re.I),
        EndKind.CAPACITY,
    ),
    (re.compile(r"insufficient (resources|capacity)|not enough resources|max_?wait", re.I), EndKind.CAPACITY),
    (re.compile(r"out.of.memory|low on memory", re.I), EndKind.INFRASTRUCTURE),
    (re.compile(r"permission|denied|forbidden|not authorized|act as", re.I), EndKind.PERMISSION),
    (re.compile(r"\bimages?\b|ImagePull|\bpull", re.I), EndKind.IMAGE),
    (re.compile(r"time(d)? ?out|deadline|maximum (job )?run", re.I), EndKind.TIMEOUT),
    (re.compile(r"internal error", re.I), EndKind.INFRASTRUCTURE),
)

#: google.rpc.Code → the kind of end, where no words say more.
_CODES = {
    3: EndKind.INVALID_REQUEST,
    4: EndKind.TIMEOUT,
    5: EndKind.INVALID_REQUEST,
    7: EndKind.PERMISSION,
    8: EndKind.CAPACITY,
    9: EndKind.INVALID_REQUEST,
    16: EndKind.PERMISSION,
}


def job_status(job: Mapping[str, Any]) -> JobStatus:
    """Return the status of a job.

    :param job: a CustomJob, also one without its spec.
    """
    name = job.get("state", "").removeprefix(_PREFIX)
    code, message = job.get("error", {}).get("code", 0), _first_line(job.get("error", {}).get("message", ""))
    started_at, ended_at = _time(job.get("startTime")), _time(job.get("endTime"))
    state, kind, exit_code = _state(name, code, message, started=started_at is not None)
    if kind is EndKind.CANCELLED and _ran_too_long(job, started_at, ended_at):
        state, kind = JobState.FAILED, EndKind.TIMEOUT
        # Its own message is that of all that are cancelled.
        message = "Vertex AI stopped it: it ran longer than it may (scheduling.timeout)"
    elif name == "EXPIRED":
        message = message or "Vertex AI gave the job up (JOB_STATE_EXPIRED)"
    return JobStatus(
        str(job["name"]).rpartition("/")[2],
        state,
        detail="" if state.ended else name.lower().replace("_", " "),
        kind=kind,
        reason=message if state.ended else "",
        exit_code=exit_code,
        created_at=_time(job.get("createTime")),
        started_at=started_at,
        ended_at=ended_at,
        metadata=_facts(job),
        name=job.get("labels", {}).get(LABEL, ""),
    )


def _state(name: str, code: int, message: str, *, started: bool) -> tuple[JobState, EndKind | None, int | None]:
    if name == "SUCCEEDED":
        return JobState.SUCCEEDED, None, 0
    if name in ("FAILED", "PARTIALLY_SUCCEEDED"):
        return JobState.FAILED, *_failure(code, message)
    if name == "EXPIRED":
        return JobState.FAILED, EndKind.TIMEOUT if started else EndKind.CAPACITY, None
    if name == "CANCELLED":
        kind = _by_words(message)
        if kind in (EndKind.TIMEOUT, EndKind.CAPACITY, EndKind.PREEMPTED):
            return JobState.FAILED, kind, None
        return JobState.STOPPED, EndKind.CANCELLED, None
    return _GOING_ON.get(name, JobState.RUNNING), None, None


def _failure(code: int, message: str) -> tuple[EndKind, int | None]:
    found = _EXIT.search(message)
    if found is None:
        return _by_words(message) or _CODES.get(code, EndKind.INFRASTRUCTURE), None
    status = int(found[1])
    number = status if found[2] else status - SIGNALLED
    if number == signal.SIGTERM:  # what our runtime ends with when it is asked to
        return EndKind.PREEMPTED, SIGNALLED + number
    if number > 0:
        return killed_by(number)[0], -number
    return EndKind.USER_CODE, status


def _by_words(message: str) -> EndKind | None:
    return next((kind for words, kind in _REASONS if words.search(message)), None)


def _ran_too_long(job: Mapping[str, Any], started_at: float | None, ended_at: float | None) -> bool:
    """Whether a cancelled job was so by its timeout: Vertex does not always say it."""
    longest = str(job.get("jobSpec", {}).get("scheduling", {}).get("timeout", "")).removesuffix("s")
    if started_at is None or ended_at is None or not longest:
        return False
    return ended_at - started_at >= float(longest)


def _first_line(message: str) -> str:
    """Return the part of a message that is Vertex's own: the last lines of the container's log follow it."""
    return message.strip().partition("\n")[0].strip()


def _facts(job: Mapping[str, Any]) -> dict[str, Any]:
    spec = job.get("jobSpec", {})
    pools = [pool for pool in spec.get("workerPoolSpecs", []) if pool.get("machineSpec")]
    if not pools:
        return {}
    machine = pools[0]["machineSpec"]
    facts = {
        "machine_type": machine.get("machineType"),
        "accelerator_type": machine.get("acceleratorType"),
        "accelerator_count": machine.get("acceleratorCount"),
        "replica_count": sum(int(pool.get("replicaCount", 1)) for pool in pools),
        "strategy": spec.get("scheduling", {}).get("strategy"),
    }
    return {key: value for key, value in facts.items() if value}


def _time(moment: str | None) -> float | None:
    """Return a Unix time; Google gives up to nine digits of a second."""
    if not moment:
        return None
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", moment)).timestamp()
