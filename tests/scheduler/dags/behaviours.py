"""Pipelines that do what a test tells them, run by a real scheduler and triggerer."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from airflow.sdk import task

from airflow_stepops import log_metadata
from airflow_stepops.dag import Image, maintenance, pipeline, step

if TYPE_CHECKING:
    import pandas as pd

FRAMES = Image(requirements=["pandas", "pyarrow"])


@step(step_operator=True)
def wait_for(gate: str, number: int) -> int:
    print(f"waiting at {gate}", flush=True)
    while not Path(gate).exists():
        time.sleep(0.05)
    return number


@step(step_operator=True)
def raise_error() -> None:
    raise ValueError("the rate is negative")


@step(step_operator=True)
def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@step(step_operator=True)
def print_lines(count: int) -> int:
    for number in range(count):
        print(f"line {number}")
    return count


@step
def numbers() -> list[int]:
    return [1, 2, 3]


@step(step_operator=True, image=FRAMES)
def split(numbers: list[int]) -> tuple[Annotated[pd.DataFrame, "small"], Annotated[pd.DataFrame, "large"]]:
    import pandas as pd

    frame = pd.DataFrame({"x": numbers})
    log_metadata(rows=len(frame))
    return frame[frame.x < 2], frame[frame.x >= 2]


@step
def total(frames: list[pd.DataFrame]) -> int:
    return int(sum(frame.x.sum() for frame in frames))


@task
def ordinary(reference) -> int:  # type: ignore[no-untyped-def]
    return len(reference.load())


@pipeline
def three_waiting(gate: str = "") -> None:
    wait_for.partial(gate=gate).expand(number=numbers())


@pipeline
def one_waiting(gate: str = "") -> None:
    wait_for.override(retries=1, retry_delay=1)(gate, 7)


@pipeline(stack="slow")
def slow_waiting(gate: str = "") -> None:
    wait_for.override(retries=1, retry_delay=1)(gate, 7)


@pipeline(dagrun_timeout=timedelta(seconds=60))
def run_with_a_limit(gate: str = "") -> None:
    wait_for(gate, 7)


@pipeline
def step_with_a_limit(gate: str = "") -> None:
    wait_for.override(execution_timeout=timedelta(seconds=30))(gate, 7)


@pipeline(stack="slow")
def launching(gate: str = "") -> None:
    wait_for.override(settings={"seconds": 0.5, "answer_seconds": 600}, retries=1, retry_delay=1)(gate, 7)


@pipeline(stack="slow")
def launching_with_a_limit(gate: str = "") -> None:
    slow = {"seconds": 0.5, "answer_seconds": 600}
    wait_for.override(settings=slow, execution_timeout=timedelta(seconds=30))(gate, 7)


@pipeline(stack="halved")
def trigger_that_fails(gate: str = "") -> None:
    wait_for(gate, 7)


@pipeline
def bad_ends() -> None:
    raise_error()
    kill_itself()
    print_lines(100_000)


@pipeline
def values() -> None:
    parts = split(numbers())
    total([parts["small"], parts["large"]])
    ordinary(parts["large"])


maintenance_dag = maintenance(schedule=None)
