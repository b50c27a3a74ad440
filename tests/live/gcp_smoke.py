"""Jobs on a real Google Cloud project: run by ``make test-live-gcp``, never by the usual test run.

See docs/vertex-ai.md.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.clouds.gcp.connection import account
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
            "other": {**parts, "step_operators": ["spot"]},
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
