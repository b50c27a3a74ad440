"""The suite for real accounts, run on the emulated AWS: it works, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from tests.clouds.aws.emulated import ACCESS_KEY, REGION, SECRET_KEY, EmulatedAws
from tests.clouds.aws.sagemaker import ROLE, SageMaker
from tests.images.faults import FaultyProxy

CHECKOUT = Path(__file__).resolve().parents[3]
SUITE = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/live/aws_smoke.py"]


def test_the_suite_passes_and_deletes_all_that_it_made(
    aws: EmulatedAws, emulated: SageMaker, images: FaultyProxy, base_image: str
) -> None:
    bucket = f"live-{uuid.uuid4().hex}"
    aws.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    extra = {"region_name": REGION, "endpoint_url": aws.url}
    connection = {"conn_type": "aws", "login": ACCESS_KEY, "password": SECRET_KEY, "extra": extra}
    settings = {
        "LIVE_CONNECTION": json.dumps(connection),
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": aws.url,
        "LIVE_BUCKET": bucket,
        "LIVE_REGISTRY": images.host,
        "LIVE_ROLE": ROLE,
        "LIVE_BASE_IMAGE": base_image,
    }
    done = subprocess.run(
        SUITE, cwd=CHECKOUT, env={**os.environ, **settings}, capture_output=True, text=True, check=False, timeout=550
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
    assert aws.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    repositories = aws.client("ecr").describe_repositories()["repositories"]
    assert "stepops-live" not in [repository["repositoryName"] for repository in repositories]


def test_without_its_settings_the_suite_says_what_it_needs() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVE_")}
    done = subprocess.run(SUITE, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "LIVE_BUCKET is not set" in done.stdout
