"""What SageMaker says of a job, in the words of the protocol."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_stepops.clouds.exit_codes import SIGNALLED, killed_by
from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.protocol import JobState, JobStatus

#: Secondary states in which no machine runs the container (API reference, DescribeTrainingJob: ``SecondaryStatus``).
_WAITING = frozenset({"Starting", "Pending", "LaunchingMLInstances", "PreparingTrainingStack", "Interrupted"})
_PULLING = frozenset({"Downloading", "DownloadingTrainingImage", "Restarting"})
_EXIT_CODE = re.compile(r"exit code:? (\d+)", re.IGNORECASE)

#: Beginning of FailureReason, and words in it → the kind of end. The first that fits.
_REASONS = (
    (re.compile(r"CapacityError|ResourceLimitExceeded|insufficient ?capacity", re.I), EndKind.CAPACITY),
    (re.compile(r"pull|image|ECR|repository", re.I), EndKind.IMAGE),
    (re.compile(r"AccessDenied|not authorized|permission|assume|credentials", re.I), EndKind.PERMISSION),
    (re.compile(r"InternalServerError|InternalError|Internal server", re.I), EndKind.INFRASTRUCTURE),
    (re.compile(r"ClientError|ValidationException", re.I), EndKind.INVALID_REQUEST),
)


def training_status(described: Mapping[str, Any]) -> JobStatus:
    """Return the status of a training job.

    :param described: answer of DescribeTrainingJob, or a summary of ListTrainingJobs.
    """
    primary, secondary = described["TrainingJobStatus"], described.get("SecondaryStatus", "")
    facts = {
        "billable_seconds": described.get("BillableTimeInSeconds"),
        "training_seconds": described.get("TrainingTimeInSeconds"),
        **_machine(described.get("ResourceConfig", {})),
    }
    return _status(
        described["TrainingJobName"],
        primary,
        secondary,
        described,
        started_at=described.get("TrainingStartTime"),
        ended_at=described.get("TrainingEndTime"),
        facts=facts,
    )


def processing_status(described: Mapping[str, Any]) -> JobStatus:
    """Return the status of a processing job.

    :param described: answer of DescribeProcessingJob, or a summary of ListProcessingJobs.
    """
    started_at = described.get("ProcessingStartTime")
    ended_at = described.get("ProcessingEndTime")
    cluster = described.get("ProcessingResources", {}).get("ClusterConfig", {})
    longest = described.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
    # Unlike a training job, it does not tell by whom it was stopped.
    stopped = described["ProcessingJobStatus"] == "Stopped"
    late = stopped and started_at and ended_at and longest and (ended_at - started_at).total_seconds() >= longest
    return _status(
        described["ProcessingJobName"],
        described["ProcessingJobStatus"],
        "MaxRuntimeExceeded" if late else "" if started_at else "Starting",
        described,
        started_at=started_at,
        ended_at=ended_at,
        facts=_machine(cluster),
    )


def _status(
    name: str,
    primary: str,
    secondary: str,
    described: Mapping[str, Any],
    *,
    started_at: datetime | None,
    ended_at: datetime | None,
    facts: Mapping[str, Any],
) -> JobStatus:
    reason = described.get("FailureReason") or described.get("ExitMessage") or ""
    state, kind, exit_code = _state(primary, secondary, reason)
    if kind is EndKind.TIMEOUT and not reason:
        reason = "SageMaker stopped it: it ran longer than it may (MaxRuntimeInSeconds)"
    if kind is EndKind.CAPACITY and not reason:
        reason = "SageMaker stopped it: it waited longer for spot capacity than it may (MaxWaitTimeInSeconds)"
    return JobStatus(
        name,
        state,
        detail=_detail(secondary, described),
        kind=kind,
        reason=reason,
        exit_code=exit_code,
        created_at=_time(described.get("CreationTime")),
        started_at=_time(started_at),
        ended_at=_time(ended_at),
        metadata={key: value for key, value in facts.items() if value is not None},
    )


def _state(primary: str, secondary: str, reason: str) -> tuple[JobState, EndKind | None, int | None]:
    if primary == "Completed":
        return JobState.SUCCEEDED, None, 0
    if primary == "Stopped":
        if secondary == "MaxRuntimeExceeded" or "MaxRuntime" in reason:
            return JobState.FAILED, EndKind.TIMEOUT, None
        if secondary == "MaxWaitTimeExceeded":
            return JobState.FAILED, EndKind.CAPACITY, None
        return JobState.STOPPED, EndKind.CANCELLED, None
    if primary in ("Failed", "Deleting"):
        return JobState.FAILED, *_failure(reason)
    if primary == "Stopping":
        return JobState.STOPPING, None, None
    waiting = secondary in _WAITING or secondary in _PULLING
    return (JobState.PENDING if waiting else JobState.RUNNING), None, None


def _failure(reason: str) -> tuple[EndKind, int | None]:
    found = _EXIT_CODE.search(reason)
    if found is not None:
        code = int(found[1])
        if code == SIGNALLED + signal.SIGTERM:  # what our runtime ends with when it is asked to
            return EndKind.PREEMPTED, code
        if code > SIGNALLED:
            return killed_by(code - SIGNALLED)[0], SIGNALLED - code
        return EndKind.USER_CODE, code
    if reason.startswith("AlgorithmError"):
        return EndKind.USER_CODE, None
    return next((kind for words, kind in _REASONS if words.search(reason)), EndKind.INFRASTRUCTURE), None


def _detail(secondary: str, described: Mapping[str, Any]) -> str:
    """Return the progress in SageMaker's words."""
    transitions = described.get("SecondaryStatusTransitions") or [{}]
    message = transitions[-1].get("StatusMessage", "")
    return f"{secondary}: {message}" if message and secondary else secondary


def _machine(resources: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "instance_type": resources.get("SelectedInstanceType") or resources.get("InstanceType"),
        "instance_count": resources.get("SelectedInstanceCount") or resources.get("InstanceCount"),
    }


def _time(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None
