"""Jobs on a real Google Cloud project: run by hand, never by the usual test run. See docs/vertex-ai.md."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator

import pytest

from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.clouds.gcp.connection import account
from tests.live.project import Project, setting

REPOSITORY = "stepops-live"
_LATE_LOG_SECONDS = 120


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The stacks ``live`` and ``spot``; all that they made is deleted."""
    region, prefix = setting("LIVE_REGION"), f"stepops-live/{uuid.uuid4().hex}"
    values = GcsArtifactStore(bucket=setting("LIVE_BUCKET"), prefix=prefix)
    operator = {
        "flavor": "vertex",
        "region": region,
        "service_account": setting("LIVE_SERVICE_ACCOUNT"),
        "timeout": 900,
    }
    if "LIVE_BASE_IMAGE" in os.environ:
        operator["base_image"] = os.environ["LIVE_BASE_IMAGE"]
    parts = {"artifact_store": "values", "container_registry": "images"}
    document = {
        "version": 1,
        "artifact_stores": {"values": values.document()},
        "container_registries": {"images": {"flavor": "gar", "location": region, "repository": REPOSITORY}},
        "step_operators": {"standard": operator, "spot": {**operator, "strategy": "spot"}},
        "stacks": {
            "live": {**parts, "step_operators": ["standard"]},
            "spot": {**parts, "step_operators": ["spot"]},
        },
    }
    if "LIVE_CONNECTION" in os.environ:
        os.environ["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"] = os.environ["LIVE_CONNECTION"]
    try:
        yield Project.at(tmp_path_factory.mktemp("live"), document)
    finally:
        _delete(values, region)


def _delete(values: GcsArtifactStore, region: str) -> None:
    store = values.open()
    for uri in store.list(values.root()):
        store.delete(uri)
    google = account()
    place = f"projects/{google.project}/locations/{region}/repositories/{REPOSITORY}"
    google.call("DELETE", f"{google.endpoint('artifactregistry')}/v1/{place}")


def test_the_stack_is_well(project: Project) -> None:
    code, printed = project.call("doctor", "--stack", "live")
    assert code == 0, printed


@pytest.mark.parametrize("stack", ["live", "spot"])
def test_a_job_ends_well(project: Project, stack: str) -> None:
    code, printed = project.on(stack).run("live_count")
    assert code == 0, printed
    step = project.on(stack).last("live_count", "count")
    assert step.load() == sum(range(10_000))
    assert step.metadata["numbers"] == 10_000
    deadline, log = time.monotonic() + _LATE_LOG_SECONDS, ""
    while "10000 numbers" not in log:
        assert time.monotonic() < deadline, log
        log = project.on(stack).call("logs", "live_count", step.run_id, "count", "--stack", stack)[1]


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
