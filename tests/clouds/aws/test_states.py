"""What SageMaker says of a job, as the kinds of end that Airflow acts upon."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_stepops.clouds.aws.states import processing_status, training_status
from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.protocol import JobState


def training(status: str, secondary: str, reason: str = "", **facts: Any) -> Any:
    described = {"TrainingJobName": "j", "TrainingJobStatus": status, "SecondaryStatus": secondary, **facts}
    return training_status({**described, "FailureReason": reason} if reason else described)


@pytest.mark.parametrize(
    ("secondary", "state"),
    [
        ("Starting", JobState.PENDING),
        ("Pending", JobState.PENDING),
        ("Downloading", JobState.PENDING),
        ("Training", JobState.RUNNING),
        ("Uploading", JobState.RUNNING),
        ("Interrupted", JobState.PENDING),
        ("Restarting", JobState.PENDING),
        ("SomethingNew", JobState.RUNNING),
    ],
)
def test_a_job_in_progress_runs_or_waits_as_its_secondary_status_says(secondary: str, state: JobState) -> None:
    assert training("InProgress", secondary).state is state


@pytest.mark.parametrize(
    ("reason", "kind", "exit_code"),
    [
        ("AlgorithmError: , exit code: 1", EndKind.USER_CODE, 1),
        (
            "AlgorithmError: framework error: Traceback (most recent call last): image is broken",
            EndKind.USER_CODE,
            None,
        ),
        ("AlgorithmError: , exit code: 137", EndKind.INFRASTRUCTURE, -9),
        ("AlgorithmError: , exit code: 139", EndKind.USER_CODE, -11),
        ("CapacityError: Unable to provision requested ML compute capacity.", EndKind.CAPACITY, None),
        ("ResourceLimitExceeded: The account-level service limit is 0 Instances", EndKind.CAPACITY, None),
        ("ClientError: Cannot pull algorithm container. Either the image does not exist", EndKind.IMAGE, None),
        ("ClientError: Data download failed: AccessDenied (403) when calling GetObject", EndKind.PERMISSION, None),
        ("ClientError: Please use an instance type with more memory", EndKind.INVALID_REQUEST, None),
        ("InternalServerError: We encountered an internal error.", EndKind.INFRASTRUCTURE, None),
        ("", EndKind.INFRASTRUCTURE, None),
    ],
)
def test_a_failure_has_a_kind_by_its_reason(reason: str, kind: EndKind, exit_code: int | None) -> None:
    status = training("Failed", "Failed", reason)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, kind, exit_code)


@pytest.mark.parametrize(
    ("secondary", "state", "kind"),
    [
        ("Stopped", JobState.STOPPED, EndKind.CANCELLED),
        ("MaxRuntimeExceeded", JobState.FAILED, EndKind.TIMEOUT),
        ("MaxWaitTimeExceeded", JobState.FAILED, EndKind.CAPACITY),
    ],
)
def test_a_stopped_job_was_stopped_by_somebody_or_by_a_limit(secondary: str, state: JobState, kind: EndKind) -> None:
    status = training("Stopped", secondary)
    assert (status.state, status.kind) == (state, kind)
    assert (kind is EndKind.CANCELLED) == (status.reason == "")


def test_times_machine_and_what_is_billed_are_told() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    status = training(
        "Completed",
        "Completed",
        CreationTime=at,
        TrainingStartTime=at,
        TrainingEndTime=at,
        BillableTimeInSeconds=90,
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 30},
        SecondaryStatusTransitions=[{"Status": "Completed", "StatusMessage": "Training job completed"}],
    )
    assert (status.state, status.exit_code, status.ended_at) == (JobState.SUCCEEDED, 0, at.timestamp())
    assert status.metadata == {"billable_seconds": 90, "instance_type": "ml.m5.large", "instance_count": 2}
    assert status.detail == "Completed: Training job completed"


def test_a_processing_job_waits_until_it_has_a_start() -> None:
    described = {"ProcessingJobName": "j", "ProcessingJobStatus": "InProgress"}
    assert processing_status(described).state is JobState.PENDING
    started = {**described, "ProcessingStartTime": datetime(2026, 1, 1, tzinfo=UTC)}
    assert processing_status(started).state is JobState.RUNNING
    failed = {
        **started,
        "ProcessingJobStatus": "Failed",
        "FailureReason": "AlgorithmError: See job logs",
        "ExitMessage": "",
    }
    assert processing_status(failed).kind is EndKind.USER_CODE
