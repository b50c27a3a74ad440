"""How an attempt ended decides when the next one begins. Needs Airflow 3.3."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import RetryAction, RetryDecision

from airflow_stepops.client import Client
from airflow_stepops.dag import RetryByKind
from airflow_stepops.errors import EndKind, JobFailedError, StepDefinitionError
from airflow_stepops.jobs.outcome import FINAL_KINDS
from tests.airflow_env import InProcessAirflow
from tests.operators.conftest import Scarce

DAG = """\
from datetime import timedelta

from airflow_stepops.dag import RetryByKind, pipeline, step


@step(
    step_operator=True,
    retries=3,
    retry_delay=timedelta(days=1),
    retry_policy=RetryByKind(capacity=0, user_code=False),
)
def count(number):
    return 1 // number


@pipeline
def counting():
    count.partial().expand(number=[0, 1])
"""


def decided(policy: RetryByKind, error: Exception) -> RetryDecision:
    return policy.evaluate(exception=error, try_number=1, max_tries=3, context=None)


def test_the_next_attempt_comes_when_the_kind_says_and_not_at_all_where_it_cannot_help(
    airflow_in_process: InProcessAirflow, scarce: Scarce
) -> None:
    scarce.set(fallbacks="[{machine: small}]")
    airflow_in_process.write("counting.py", DAG)
    run = airflow_in_process.run("counting")
    assert run.states == {"count[0]": "failed", "count[1]": "success"}
    steps = [Client().get_run("counting", run.run_id).step("count", index) for index in (0, 1)]
    assert [len(step.attempts) for step in steps] == [2, 2]


@pytest.mark.parametrize(
    ("kind", "delay"),
    [("preempted", timedelta(0)), ("infrastructure", timedelta(0)), ("capacity", timedelta(minutes=15))],
)
def test_what_says_nothing_of_the_step_itself_has_a_delay_of_its_own(kind: str, delay: timedelta) -> None:
    decision = decided(RetryByKind(), JobFailedError("the job ended", EndKind(kind)))
    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, delay)
    assert decision.reason == f"the job ended with {kind}"


def test_all_else_follows_the_settings_of_the_step() -> None:
    for error in (JobFailedError("no", EndKind.USER_CODE), JobFailedError("no", EndKind.TIMEOUT), ValueError("no")):
        assert decided(RetryByKind(), error).action is RetryAction.DEFAULT


def test_delays_are_durations_and_false_is_no_retry() -> None:
    policy = RetryByKind(capacity="1h", timeout=timedelta(minutes=2), lost_result=False)
    assert decided(policy, JobFailedError("no", EndKind.CAPACITY)).retry_delay == timedelta(hours=1)
    assert decided(policy, JobFailedError("no", EndKind.TIMEOUT)).retry_delay == timedelta(minutes=2)
    assert decided(policy, JobFailedError("no", EndKind.LOST_RESULT)).action is RetryAction.FAIL


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        ({"capacty": 0}, "Did you mean 'capacity'?"),
        ({"capacity": "soon"}, "RetryByKind(capacity=…)='soon' is not a duration"),
        ({"capacity": True}, "RetryByKind(capacity=…)=True is not a duration"),
        *(
            ({kind.value: 0}, f"RetryByKind({kind.value}=…): no kind of end that is retried")
            for kind in sorted(FINAL_KINDS)
        ),
    ],
)
def test_a_wrong_kind_or_delay_is_named_while_the_dag_is_parsed(kinds: dict[str, Any], says: str) -> None:
    with pytest.raises(StepDefinitionError) as error:
        RetryByKind(**kinds)
    assert says in str(error.value)


def test_before_airflow_3_3_it_is_said_that_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_stepops.decorators.retries.RetryPolicy", object)
    with pytest.raises(StepDefinitionError, match=r"needs Airflow 3\.3"):
        RetryByKind()
