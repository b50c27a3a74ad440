"""Jobs in a real workspace of Azure ML: run by ``make test-live-azure``, never by the usual test run.

See docs/azure-ml.md.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from airflow_stepops.clouds.azure.artifact_store import AzureBlobArtifactStore
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
    """The stacks ``live`` and ``other``, which has machines that may be taken away. What they wrote is deleted."""
    values = AzureBlobArtifactStore(
        account_name=setting("LIVE_STORAGE_ACCOUNT"),
        container=setting("LIVE_CONTAINER"),
        prefix=f"stepops-live/{uuid.uuid4().hex}",
        endpoint=os.environ.get("LIVE_BLOB_ENDPOINT"),
    )
    operator = {
        "flavor": "azureml",
        "resource_group": setting("LIVE_RESOURCE_GROUP"),
        "workspace_name": setting("LIVE_WORKSPACE"),
        "timeout": 900,
    }
    if "LIVE_BASE_IMAGE" in os.environ:
        operator["base_image"] = os.environ["LIVE_BASE_IMAGE"]
    parts = {"artifact_store": "values", "container_registry": "images"}
    document = {
        "version": 1,
        "artifact_stores": {"values": values.document()},
        "container_registries": {
            "images": {"flavor": "acr", "uri": setting("LIVE_REGISTRY"), "repository": REPOSITORY},
        },
        "step_operators": {"dedicated": operator, "spot": {**operator, "tier": "spot"}},
        "stacks": {
            "live": {**parts, "step_operators": ["dedicated"]},
            "other": {**parts, "step_operators": ["spot"]},
        },
    }
    if "LIVE_CONNECTION" in os.environ:
        os.environ["AIRFLOW_CONN_AZURE_DEFAULT"] = os.environ["LIVE_CONNECTION"]
    try:
        yield Project.at(tmp_path_factory.mktemp("live"), document)
    finally:
        store = values.open()
        for uri in store.list(values.root()):
            store.delete(uri)
