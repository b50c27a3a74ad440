"""Who an attempt is: its folder in the artifact store, and the name of its job."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re

from airflow_stepops.runtime.spec import Attempt

_UNSAFE = re.compile(r"[^A-Za-z0-9_.=-]+")
_SEGMENT_LENGTH = 120

#: The shortest limit of all services (SageMaker: ``[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}``).
JOB_NAME_LENGTH = 63


def segment(text: str) -> str:
    """Return a readable path segment that is safe in every object store, different for different texts."""
    safe = _UNSAFE.sub("_", text)[:_SEGMENT_LENGTH]
    if safe == text and safe.strip("."):
        return safe
    return f"{safe.strip('.')}-{_digest(text)[:8]}"


def task_directory(root: str, attempt: Attempt) -> str:
    """Return the URI of the folder of a task instance, which holds its attempts and checkpoints."""
    parts = (attempt.dag_id, attempt.run_id, attempt.task_id, str(attempt.map_index), attempt.instance)
    return "/".join((root, "runs", *(segment(part) for part in parts)))


def attempt_directory(root: str, attempt: Attempt) -> str:
    """Return the URI of the folder of an attempt."""
    return f"{task_directory(root, attempt)}/attempt-{attempt.try_number}"


def job_name(root: str, attempt: Attempt) -> str:
    """Return the name of the attempt's job: a pure function of the attempt and of the artifact store's root.

    The attempt's ``ti_id`` is in it, so no two attempts of any Airflow share a name, which a service may never free.

    :returns: ``[a-z0-9]([a-z0-9-]*[a-z0-9])?``, at most 63 characters.
    """
    identity = _digest(json.dumps([root, dataclasses.asdict(attempt)], sort_keys=True))[:16]
    readable = "-".join(_slug(text) for text in (attempt.dag_id, attempt.task_id))
    suffix = f"-{attempt.try_number}-{identity}"
    return f"{readable[: JOB_NAME_LENGTH - len(suffix)].rstrip('-')}{suffix}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:20].rstrip("-") or "x"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
