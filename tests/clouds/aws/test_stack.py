"""A stack of S3 and ECR as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.aws.conftest import Connect
from tests.clouds.aws.emulated import ACCESS_KEY, REGION, SECRET_KEY, EmulatedAws
from tests.images.faults import FaultyProxy


def doctor() -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the checks by what was checked, and all that was printed."""
    command = [sys.executable, "-m", "airflow_stepops.cli", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, {check["what"]: check for check in json.loads(done.stdout)}, done.stdout + done.stderr


def test_doctor_finds_a_stack_well_or_says_what_it_lacks(
    aws: EmulatedAws,
    ecr: FaultyProxy,
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket, connection = f"doctor-{uuid.uuid4().hex}", connect()
    file = tmp_path / "stepops.yaml"
    file.write_text(f"""\
version: 1
active: cloud
artifact_stores:      {{values: {{flavor: s3, bucket: {bucket}, connection: {connection}}}}}
container_registries: {{images: {{flavor: ecr, uri: "{ecr.host}/{bucket}", connection: {connection}}}}}
step_operators:       {{here: {{flavor: local}}}}
stacks:               {{cloud: {{artifact_store: values, container_registry: images, step_operators: [here]}}}}
""")
    monkeypatch.setenv("STEPOPS_CONFIG", str(file))
    code, checks, _ = doctor()
    assert code == 1
    assert f"bucket '{bucket}' does not exist: make it" in checks["artifact store values"]["said"]
    aws.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for _ in range(2):
        code, checks, printed = doctor()
        assert code == 0, checks
        assert [checks[what]["passed"] for what in ("artifact store values", "container registry images")] == [True] * 2
    assert aws.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert not any(secret in printed for secret in (SECRET_KEY, ACCESS_KEY, *aws.given))
