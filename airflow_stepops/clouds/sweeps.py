"""What a list of a service says of jobs, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from airflow_stepops.jobs.protocol import JobStatus

E = TypeVar("E")


def read_entry(read: Callable[[E], JobStatus], entry: E) -> JobStatus | None:
    """Return what an entry says of its job, ``None`` for one that cannot be read.

    Whoever waits for such a job describes it, and gets the error; the other jobs of the list are told all the same.
    """
    try:
        return read(entry)
    except Exception:  # noqa: BLE001 - raised again by the service's describe(), to those whom it concerns
        return None
