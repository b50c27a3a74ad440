"""Where the next attempt runs when a machine is not to be had."""

from __future__ import annotations

import pytest

from airflow_stepops.client import Client
from airflow_stepops.errors import StackError
from airflow_stepops.stacks.file import load
from tests.airflow_env import InProcessAirflow
from tests.operators.conftest import Scarce

DAG = """\
from airflow_stepops.dag import pipeline, step


@step(step_operator=True, retries={retries}, retry_delay=0)
def count():
    return 7


@pipeline
def counting():
    count()
"""


def test_an_attempt_that_finds_no_machine_is_followed_by_one_on_the_next(
    airflow_in_process: InProcessAirflow, scarce: Scarce
) -> None:
    scarce.set(fallbacks="[{machine: medium}, {machine: small}]")
    airflow_in_process.write("counting.py", DAG.format(retries=2))
    run = airflow_in_process.run("counting")
    assert (run.state, run.xcom("count")) == ("success", 7)
    attempts = Client().get_run("counting", run.run_id).step("count").attempts
    assert [attempt.error.message for attempt in attempts if attempt.error] == [
        "there is no large machine",
        "there is no medium machine",
    ]


def test_after_the_last_machine_comes_the_first_again(scarce: Scarce) -> None:
    scarce.set(machine="small", fallbacks="[{machine: large}, {machine: medium}]")
    operator = load().stack(None).operator_named("scarce")
    machines = [operator.fallen_back(number).machine for number in range(4)]  # type: ignore[attr-defined]
    assert machines == ["small", "large", "medium", "small"]


@pytest.mark.parametrize(
    ("fallbacks", "says"),
    [
        ("[{machine: huge}]", r"fallbacks\[0\]: .*machine: 'huge' is not allowed"),
        ("[{machine: small}, {machne: small}]", r"fallbacks\[1\]: .*machne: unknown setting.*'machine'"),
        ("small", "fallbacks: 'small' is not allowed"),
    ],
)
def test_a_wrong_fallback_is_named_when_the_stack_is_read(scarce: Scarce, fallbacks: str, says: str) -> None:
    scarce.set(fallbacks=fallbacks)
    with pytest.raises(StackError, match=says):
        load().stack(None)
