"""What Azure ML says of a job, in our words."""

from __future__ import annotations

from typing import Any

import pytest
from azure.ai.ml._restclient.arm_ml_service.models import JobStatus as AzureJobStatus

from airflow_stepops.clouds.azure.states import has_ended, job_status
from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.protocol import JobState, JobStatus

ENDED = {"Completed", "Failed", "Canceled"}


def said(status: str, error: dict[str, Any] | None = None, **facts: Any) -> JobStatus:
    """Return what we make of a job and its run."""
    job = {
        "name": "churn-train-1",
        "properties": {
            "status": status,
            "experimentName": "churn",
            "limits": {"jobLimitsType": "Command", "timeout": "PT1H"},
            "resources": {"instanceCount": 1, "instanceType": "Standard_D2s_v3"},
        },
        "systemData": {"createdAt": "2026-01-01T00:00:00.1234567+00:00"},
    }
    details = {"status": status, "startTimeUtc": "2026-01-01T00:01:00Z", "endTimeUtc": "2026-01-01T00:02:00Z", **facts}
    return job_status(job, {**details, **({"error": {"error": error}} if error else {})})


def failed(message: str, code: str = "UserError", inner: str = "") -> JobStatus:
    return said("Failed", {"code": code, "message": message, "innerError": {"code": inner} if inner else None})


@pytest.mark.parametrize("status", [str(one.value) for one in AzureJobStatus])
def test_every_status_of_azure_has_its_meaning_and_three_are_final(status: str) -> None:
    found = said(status)
    assert found.state.ended == has_ended({"status": status}) == (status in ENDED)
    assert bool(found.detail) == (status not in ENDED)


@pytest.mark.parametrize(
    ("status", "state", "detail"),
    [
        ("NotStarted", JobState.PENDING, "not started"),
        ("Queued", JobState.PENDING, "queued"),
        ("Preparing", JobState.PENDING, "preparing"),
        ("Running", JobState.RUNNING, "running"),
        ("Finalizing", JobState.RUNNING, "finalizing"),
        ("NotResponding", JobState.RUNNING, "not responding"),
        ("Paused", JobState.PENDING, "paused"),
        ("SomethingNew", JobState.RUNNING, "something new"),
        ("CancelRequested", JobState.STOPPING, "cancel requested"),
    ],
)
def test_what_goes_on_is_told_in_azure_s_words(status: str, state: JobState, detail: str) -> None:
    found = said(status)
    assert (found.state, found.detail, found.kind, found.ended_at) == (state, detail, None, None)


def test_a_job_that_completed_has_its_times_and_facts() -> None:
    found = said("Completed")
    assert (found.state, found.exit_code, found.reason) == (JobState.SUCCEEDED, 0, "")
    assert found.created_at == pytest.approx(1767225600.123456)
    assert (found.started_at, found.ended_at) == (1767225660.0, 1767225720.0)
    assert found.metadata == {"instance_type": "Standard_D2s_v3", "instance_count": 1, "experiment": "churn"}


_EXITED = "Execution failed. User process 'python' exited with status code {}. Please check log file 'user_logs/std_log.txt' for error details. Error: Traceback\n  No authorization here, quota exceeded"  # noqa: E501


@pytest.mark.parametrize(
    ("status", "kind", "exit_code"),
    [
        (1, EndKind.USER_CODE, 1),
        (7, EndKind.USER_CODE, 7),
        (137, EndKind.INFRASTRUCTURE, -9),
        (-9, EndKind.INFRASTRUCTURE, -9),
        (143, EndKind.PREEMPTED, 143),
        (139, EndKind.USER_CODE, -11),
    ],
)
def test_the_exit_code_of_the_user_s_process_says_what_it_was(status: int, kind: EndKind, exit_code: int) -> None:
    found = failed(_EXITED.format(status))
    assert (found.state, found.kind, found.exit_code) == (JobState.FAILED, kind, exit_code)
    assert found.reason.startswith(f"Execution failed. User process 'python' exited with status code {status}")


def test_a_process_that_was_killed_says_by_what_and_perhaps_why() -> None:
    assert failed(_EXITED.format(137)).reason == (
        "Execution failed. User process 'python' exited with status code 137: killed by signal 9 (SIGKILL): perhaps it "
        "ran out of memory"
    )


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (
            "UserError",
            "AzureMLCompute job failed. PreemptionError: Nodes of this job got pre-empted. Check if the run has failed "
            "or restarted. Reason: Received pre-emption warning signal",
            EndKind.PREEMPTED,
        ),
        ("UserError", "The specified subscription has a total vCPU quota of 0 and cannot accomodate", EndKind.CAPACITY),
        ("ServiceError", "AllocationFailed: there is not enough capacity in the region", EndKind.CAPACITY),
        ("UserError", "Failed to pull Docker image team.azurecr.io/steps@sha256:aaaa", EndKind.IMAGE),
        ("UserError", "Job environment preparation failed on 10.0.0.4", EndKind.IMAGE),
        ("UserError", "AuthorizationFailed: the identity does not have authorization to read", EndKind.PERMISSION),
        ("UserError", "The job ran out of memory", EndKind.INFRASTRUCTURE),
        ("UserError", "No space left on device", EndKind.INFRASTRUCTURE),
        ("ServiceError", "InternalServerError", EndKind.INFRASTRUCTURE),
        ("UserError", "The distribution is not valid for this compute", EndKind.INVALID_REQUEST),
        (
            "ServiceError",
            "Got CommonRuntimeJobError: Docker container `x-execution-wrapper` failed with status code `1` due to",
            EndKind.USER_CODE,
        ),
    ],
)
def test_what_azure_says_of_a_failure_has_its_kind(code: str, message: str, kind: EndKind) -> None:
    found = failed(message, code)
    assert (found.state, found.kind) == (JobState.FAILED, kind)
    assert found.reason == message


def test_an_error_within_an_error_says_the_kind_too() -> None:
    assert failed("The job could not be run.", inner="ImagePullFailed").kind is EndKind.IMAGE


def test_a_failure_without_a_reason_says_so() -> None:
    found = said("Failed")
    assert (found.kind, found.reason) == (EndKind.INFRASTRUCTURE, "Azure ML says no reason")


def test_a_job_that_somebody_cancelled_is_not_one_that_ran_too_long() -> None:
    assert (said("Canceled").state, said("Canceled").kind) == (JobState.STOPPED, EndKind.CANCELLED)
    late = said("Canceled", endTimeUtc="2026-01-01T01:01:00.5Z")
    assert (late.state, late.kind) == (JobState.FAILED, EndKind.TIMEOUT)
    assert "limits.timeout" in late.reason
    never = said("Canceled", startTimeUtc=None)
    assert never.kind is EndKind.CANCELLED


def test_a_job_without_a_run_is_pending() -> None:
    assert job_status({"name": "x", "properties": {"status": None}}).state is JobState.PENDING
