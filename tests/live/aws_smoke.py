"""Jobs on a real AWS account: run by ``make test-live-aws``, never by the usual test run. See docs/sagemaker.md."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import boto3
import pytest

from tests.live.project import Project, setting
from tests.live.suite import (  # noqa: F401 - they run here with the project below
    test_a_job_ends_well,
    test_a_job_that_is_cancelled_ends,
    test_a_step_that_raises_says_so,
    test_the_stack_is_well,
)

REPOSITORY = "stepops-live"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The stacks ``live`` and ``other``; all that they made is deleted."""
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
            "other": {**parts, "step_operators": ["processing"]},
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
