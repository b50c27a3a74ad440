"""Microsoft's own client sees the jobs of the step operator ``azureml`` as we do."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.exceptions import JobException
from azure.identity import ClientSecretCredential

from airflow_stepops.clouds.azure import service as service_module
from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.protocol import JobState
from tests.clouds.azure.azureml import GROUP, WORKSPACE
from tests.clouds.azure.emulated import CLIENT, SECRET, SUBSCRIPTION, TENANT, EmulatedAzure
from tests.clouds.azure.ground import OnAzureML
from tests.clouds.ground import all_lines, ended, running


def client(azure: EmulatedAzure) -> MLClient:
    """Return Microsoft's own client of the workspace."""
    credential = ClientSecretCredential(TENANT, CLIENT, SECRET, authority=azure.url, disable_instance_discovery=True)
    places = {
        "resource_manager": f"{azure.url}/arm",
        "active_directory": azure.url,
        "aml_resource_id": "https://ml.azure.com/",
        "storage_endpoint": "core.windows.net",
        "azure_portal": "https://portal.azure.com/",
        "registry_discovery_endpoint": f"{azure.url}/",
    }
    return MLClient(
        credential, SUBSCRIPTION, GROUP, WORKSPACE, cloud="emulated", cloud_metadata=places, enable_telemetry=False
    )


@pytest.fixture
def ml(azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch) -> Iterator[MLClient]:
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "")  # which the client sets
    monkeypatch.setenv("AZUREML_RUN_POLLING_INTERVAL_MIN", "1")
    return client(azure)


def test_azure_ai_ml_sees_the_job_as_we_do(ground: OnAzureML, ml: MLClient) -> None:
    service, request = ground.connect(), ground.request("count", 3)
    job_id = service.submit(request).id
    status = ended(service, job_id)
    theirs: Any = ml.jobs.get(job_id)
    assert (theirs.status, status.state) == ("Completed", JobState.SUCCEEDED)
    assert theirs.environment.endswith(f"stepops:{service_module.version_of(request.image)}")
    assert theirs.experiment_name == request.attempt.dag_id == status.metadata["experiment"]
    assert theirs.creation_context.created_at.timestamp() == pytest.approx(status.created_at, abs=1e-3)
    assert theirs.resources.instance_type == status.metadata["instance_type"]
    assert job_id in [job.name for job in ml.jobs.list()]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ml.jobs.stream(job_id)
    assert f"RunId: {job_id}" in printed.getvalue()


def test_azure_ai_ml_streams_the_same_lines_and_reads_the_same_error(ground: OnAzureML, ml: MLClient) -> None:
    service, request = ground.connect(), ground.request("fail")
    job_id = service.submit(request).id
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(JobException, match="exited with status code 1"):
        ml.jobs.stream(job_id)
    lines = all_lines(service, job_id)
    assert lines[-1] == "ValueError: the rate is negative"
    assert "\n".join(lines) in printed.getvalue()


def test_azure_ai_ml_cancels_the_job_that_we_made(ground: OnAzureML, ml: MLClient) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("wait")).id
    running(service, job_id)
    ml.jobs.begin_cancel(job_id).result(60)
    assert ended(service, job_id).kind is EndKind.CANCELLED
