"""What Vertex AI says of a job, as the kinds of end that Airflow acts upon."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud.aiplatform_v1.types import JobState as TheirState

from airflow_stepops.clouds.gcp.states import ENDED, job_status
from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.protocol import JobState, JobStatus

NAME = "projects/123456789012/locations/europe-west4/customJobs/4611686018427387904"
SPEC = {
    "workerPoolSpecs": [
        {"machineSpec": {"machineType": "g2-standard-8", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}},
        {"machineSpec": {"machineType": "g2-standard-8"}, "replicaCount": "3"},
    ],
    "scheduling": {"timeout": "600s", "strategy": "SPOT"},
}


def said(state: str, code: int = 0, message: str = "", **facts: Any) -> JobStatus:
    error = {"error": {"code": code, "message": message}} if code else {}
    return job_status({"name": NAME, "state": f"JOB_STATE_{state}", **error, **facts})


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("QUEUED", JobState.PENDING),
        ("PENDING", JobState.PENDING),
        ("RUNNING", JobState.RUNNING),
        ("UPDATING", JobState.RUNNING),
        ("PAUSED", JobState.RUNNING),
        ("CANCELLING", JobState.STOPPING),
        ("SOMETHING_NEW", JobState.RUNNING),
    ],
)
def test_what_goes_on_is_no_end(state: str, expected: JobState) -> None:
    status = said(state)
    assert (status.state, status.kind, status.reason) == (expected, None, "")
    assert status.detail == state.lower().replace("_", " ")


def test_every_state_of_google_is_an_end_or_goes_on_as_its_name_says() -> None:
    ends = {"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"}
    for state in TheirState:
        name = state.name.removeprefix("JOB_STATE_")
        assert said(name).state.ended == (name in ends), name
    assert set(ENDED) == ends


@pytest.mark.parametrize(
    ("code", "message", "kind", "exit_code"),
    [
        (
            3,
            "The replica workerpool0-0 exited with a non-zero status of 1. Termination reason: Error. \n"
            "Traceback: out of memory, permission denied, image",
            EndKind.USER_CODE,
            1,
        ),
        (3, "The replica workerpool1-0 exited with a non-zero status of 7.", EndKind.USER_CODE, 7),
        (3, "The replica workerpool0-0 exited with a non-zero status of 139.", EndKind.USER_CODE, -11),
        (3, "The replica workerpool0-0 exited with a non-zero status of 137.", EndKind.INFRASTRUCTURE, -9),
        (3, "The replica workerpool0-0 exited with a non-zero status of 143.", EndKind.PREEMPTED, 143),
        (
            3,
            "The replica workerpool0-0 ran out-of-memory and exited with a non-zero status of 9(SIGKILL).",
            EndKind.INFRASTRUCTURE,
            -9,
        ),
        (3, "Replicas low on memory: workerpool0.", EndKind.INFRASTRUCTURE, None),
        (
            8,
            "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_l4",
            EndKind.CAPACITY,
            None,
        ),
        (
            8,
            "Resources are insufficient in region: europe-west4. Please try a different region",
            EndKind.CAPACITY,
            None,
        ),
        (14, "ZONE_RESOURCE_POOL_EXHAUSTED", EndKind.CAPACITY, None),
        (10, "The Spot VM of workerpool0-0 was preempted.", EndKind.PREEMPTED, None),
        (4, "Deadline of the job exceeded.", EndKind.TIMEOUT, None),
        (5, "The image europe-docker.pkg.dev/p/r/i:t does not exist.", EndKind.IMAGE, None),
        (
            7,
            "Service agent does not have permission to access Artifact Registry images in projects/p",
            EndKind.PERMISSION,
            None,
        ),
        (13, "Internal error occurred. Please retry in a few minutes.", EndKind.INFRASTRUCTURE, None),
        (9, "The persistent resource is not running.", EndKind.INVALID_REQUEST, None),
        (2, "Something nobody has seen.", EndKind.INFRASTRUCTURE, None),
    ],
)
def test_a_failure_has_a_kind_by_its_message_and_its_code(
    code: int, message: str, kind: EndKind, exit_code: int | None
) -> None:
    status = said("FAILED", code, message)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, kind, exit_code)
    assert status.reason == message.split("\n")[0].strip()


def test_a_failure_that_nobody_explains_is_the_machine_s() -> None:
    assert said("FAILED").kind is EndKind.INFRASTRUCTURE
    assert said("PARTIALLY_SUCCEEDED").state is JobState.FAILED


@pytest.mark.parametrize(
    ("facts", "state", "kind"),
    [
        ({}, JobState.STOPPED, EndKind.CANCELLED),
        ({"endTime": "2026-01-01T00:05:00Z"}, JobState.STOPPED, EndKind.CANCELLED),
        ({"endTime": "2026-01-01T00:10:00.5Z"}, JobState.FAILED, EndKind.TIMEOUT),
    ],
)
def test_a_cancelled_job_was_stopped_by_somebody_or_by_its_timeout(
    facts: dict[str, str], state: JobState, kind: EndKind
) -> None:
    status = said("CANCELLED", 1, "CANCELED", startTime="2026-01-01T00:00:00Z", jobSpec=SPEC, **facts)
    assert (status.state, status.kind) == (state, kind)


def test_an_expired_job_waited_or_ran_too_long() -> None:
    waited, ran = said("EXPIRED"), said("EXPIRED", startTime="2026-01-01T00:00:00Z")
    assert (waited.state, waited.kind) == (JobState.FAILED, EndKind.CAPACITY)
    assert ran.kind is EndKind.TIMEOUT
    assert "JOB_STATE_EXPIRED" in waited.reason


def test_id_times_and_machines_are_told() -> None:
    status = said(
        "SUCCEEDED",
        createTime="2026-01-01T00:00:00.123456789Z",
        startTime="2026-01-01T00:01:00Z",
        endTime="2026-01-01T00:02:00.5Z",
        jobSpec=SPEC,
    )
    assert (status.id, status.state, status.exit_code) == ("4611686018427387904", JobState.SUCCEEDED, 0)
    assert status.created_at == 1767225600.123456
    assert (status.started_at, status.ended_at) == (1767225660.0, 1767225720.5)
    assert status.metadata == {
        "machine_type": "g2-standard-8",
        "accelerator_type": "NVIDIA_L4",
        "accelerator_count": 1,
        "replica_count": 4,
        "strategy": "SPOT",
    }
