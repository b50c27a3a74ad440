"""Jobs on a real AWS account: run by ``make test-live-aws``, never by the usual test run. See docs/sagemaker.md."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import boto3
import pytest

from tests.live.project import Project, setting

REPOSITORY = "stepops-live"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The stacks ``live`` and ``processing``; all that they made is deleted."""
    bucket, prefix = setting("LIVE_BUCKET"), f"stepops-live/{uuid.uuid4().hex}"
    operator = {"flavor": "sagemaker", "role": setting("LIVE_ROLE"), "max_runtime": 900}
    if "LIVE_BASE_IMAGE" in os.environ:
        operator["base_image"] = os.environ["LIVE_BASE_IMAGE"]
    parts = {"artifact_store": "values", "container_registry": "images"}
    document = {
        "version": 1,
        "artifact_stores": {"values": {"flavor": "s3", "bucket": bucket, "prefix": prefix}},
        "container_registries": {
            "images": {"flavor": "ecr", "uri": setting("LIVE_REGISTRY"), "repository": REPOSITORY},
        },
        "step_operators": {"training": operator, "processing": {**operator, "job_type": "processing"}},
        "stacks": {
            "live": {**parts, "step_operators": ["training"]},
            "processing": {**parts, "step_operators": ["processing"]},
        },
    }
    if "LIVE_CONNECTION" in os.environ:
        os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = os.environ["LIVE_CONNECTION"]
    try:
        yield Project.at(tmp_path_factory.mktemp("live"), document)
    finally:
        _delete(bucket, prefix)


def _delete(bucket: str, prefix: str) -> None:
    s3, ecr = (boto3.client(service, region_name=setting("AWS_REGION")) for service in ("s3", "ecr"))
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for entry in page.get("Contents", ()):
            s3.delete_object(Bucket=bucket, Key=entry["Key"])
    ecr.delete_repository(repositoryName=REPOSITORY, force=True)


def test_the_stack_is_well(project: Project) -> None:
    code, printed = project.call("doctor", "--stack", "live")
    assert code == 0, printed


@pytest.mark.parametrize("stack", ["live", "processing"])
def test_a_job_ends_well(project: Project, stack: str) -> None:
    code, printed = project.on(stack).run("live_count")
    assert code == 0, printed
    step = project.on(stack).last("live_count", "count")
    assert step.load() == sum(range(10_000))
    assert step.metadata["numbers"] == 10_000
    assert "10000 numbers" in project.on(stack).call("logs", "live_count", step.run_id, "count", "--stack", stack)[1]


def test_a_step_that_raises_says_so(project: Project) -> None:
    code, printed = project.run("live_fail")
    assert code == 1, printed
    error = project.last("live_fail", "fail").error
    assert error is not None
    assert (error.type, error.message) == ("ValueError", "as it should")


def test_a_job_that_is_cancelled_ends(project: Project) -> None:
    running = project.start("run", "pipelines.py", "--dag-id", "live_wait", "--stack", project.stack)
    try:
        job = project.running_job("live_wait")
        code, printed = project.call("cancel", "live_wait", job["run_id"], "--stack", project.stack)
        assert code == 0, printed
        assert running.wait(600) == 1
    finally:
        running.kill()
        running.communicate()
    assert project.last("live_wait", "wait").state == "stopped"
