"""How an attempt ended, for every pair of what the service says and what the job left."""

from __future__ import annotations

import pytest

from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.outcome import Outcome, explain, judge
from airflow_stepops.jobs.protocol import JobState, JobStatus
from airflow_stepops.runtime.result import FAILED, STOPPED, SUCCEEDED, JobResult, StepError
from airflow_stepops.runtime.spec import Attempt

ATTEMPT = Attempt("dag", "run", "task", -1, 1, "instance", "ti-1")
ERROR = StepError(
    "ValueError", "bad rate", 'Traceback (most recent call last):\n  File "churn.py", line 3\nValueError: bad rate'
)


def status(state: JobState, **facts: object) -> JobStatus:
    return JobStatus("job", state, **facts)  # type: ignore[arg-type]


def result(state: str, error: StepError | None = None) -> JobResult:
    return JobResult(ATTEMPT, state, error=error)


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.STOPPED, JobState.FAILED])
def test_a_valid_result_is_the_proof_of_success_whatever_the_service_says(state: JobState) -> None:
    assert judge(status(state), result(SUCCEEDED)) == Outcome(None)


def test_a_job_that_the_service_calls_successful_but_that_left_no_result_is_a_failure() -> None:
    outcome = judge(status(JobState.SUCCEEDED), None, "there is no result at s3://x")
    assert (outcome.kind, outcome.reason) == (EndKind.LOST_RESULT, "there is no result at s3://x")


def test_an_exception_of_the_step_is_the_reason_whatever_the_exit_code_says() -> None:
    outcome = judge(status(JobState.FAILED, exit_code=1, kind=EndKind.INFRASTRUCTURE), result(FAILED, ERROR))
    assert (outcome.kind, outcome.reason) == (EndKind.USER_CODE, "ValueError: bad rate")


@pytest.mark.parametrize("kind", [EndKind.TIMEOUT, EndKind.PREEMPTED])
def test_a_stopped_step_has_the_kind_that_the_service_or_the_watcher_gives(kind: EndKind) -> None:
    assert judge(status(JobState.STOPPED, kind=kind, reason="why"), result(STOPPED)).kind is kind


def test_a_stop_without_a_reason_was_asked_for_by_somebody() -> None:
    assert judge(status(JobState.STOPPED), None).kind is EndKind.CANCELLED
    assert judge(status(JobState.STOPPED), result(STOPPED)).kind is EndKind.CANCELLED


def test_a_failure_without_result_has_the_reason_of_the_service() -> None:
    outcome = judge(
        status(JobState.FAILED, exit_code=137, kind=EndKind.INFRASTRUCTURE, reason="killed by signal 9"), None
    )
    assert (outcome.kind, outcome.reason) == (EndKind.INFRASTRUCTURE, "killed by signal 9")
    assert "exit code 3" in judge(status(JobState.FAILED, exit_code=3), None, "no result").reason


@pytest.mark.parametrize("kind", list(EndKind))
def test_only_what_a_retry_cannot_help_is_final(kind: EndKind) -> None:
    final = {EndKind.INVALID_REQUEST, EndKind.PERMISSION, EndKind.IMAGE, EndKind.CANCELLED}
    assert Outcome(kind).final == (kind in final)


@pytest.mark.parametrize("kind", list(EndKind))
def test_every_kind_of_end_is_explained_with_what_to_do_next(kind: EndKind) -> None:
    text = explain(
        Outcome(kind, "the reason"),
        where="local job x",
        log_tail=["last line"],
        console_url="https://console.example.com/x",
    )
    first, *_, advice = text.splitlines()
    assert first == f"local job x ended with {kind.value}: the reason"
    assert "  last line" in text
    assert "Job: https://console.example.com/x" in text
    assert len(advice) > 20


def test_the_explanation_of_a_step_that_raised_holds_its_own_traceback() -> None:
    failed = result(FAILED, ERROR)
    text = explain(judge(status(JobState.FAILED), failed), where="local job x", result=failed, log_tail=["noise"])
    assert 'File "churn.py", line 3' in text
    assert "noise" not in text
