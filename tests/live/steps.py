"""Pipelines of one step each, which the live suites run on a real cloud by ``stepops run``."""

from __future__ import annotations

import time

from airflow_stepops import log_metadata
from airflow_stepops.dag import pipeline, step


@step(step_operator=True, timeout="10m")
def count(numbers: list[int]) -> int:
    """End well."""
    print(f"{len(numbers)} numbers")
    log_metadata(numbers=len(numbers))
    return sum(numbers)


@step(step_operator=True, timeout="10m")
def fail() -> None:
    """End badly."""
    raise ValueError("as it should")


@step(step_operator=True, timeout="10m")
def wait() -> None:
    """Wait to be stopped."""
    print("waiting", flush=True)
    time.sleep(540)


@pipeline
def live_count() -> None:
    """A step that ends well."""
    count(list(range(10_000)))


@pipeline
def live_fail() -> None:
    """A step that raises."""
    fail()


@pipeline
def live_wait() -> None:
    """A step that waits."""
    wait()
