"""One run of one DAG on three emulated clouds."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_stepops.clouds.aws.service import SageMakerJobService
from airflow_stepops.clouds.azure.service import AzureMLJobService
from airflow_stepops.clouds.gcp.service import VertexJobService
from tests.airflow_env import DAGS, FinishedRun, InProcessAirflow
from tests.clouds.azure.acr import Acr
from tests.clouds.azure.azureml import GROUP, WORKSPACE, AzureML
from tests.clouds.azure.compute import Compute
from tests.clouds.azure.emulated import ACCOUNT, emulated_azure, running_azurite
from tests.clouds.gcp.emulated import serving
from tests.engines import Podman, running_registry
from tests.faults.amazon import amazon
from tests.faults.google import google
from tests.images.token_service import token_service

EXAMPLES = Path(__file__).resolve().parents[2] / "dags_examples"


@pytest.fixture(scope="module")
def run(
    migrated_database: None,
    podman: Podman,
    registry: str,
    base_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FinishedRun]:
    folder = tmp_path_factory.mktemp("three")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as running:
        for service in (SageMakerJobService, VertexJobService, AzureMLJobService):
            patch.setattr(service, "poll_seconds", 0.5)
        file: dict[str, Any] = {"version": 1}
        for cloud, name in ((amazon, "aws"), (google, "gcp")):
            (folder / name).mkdir()
            place = running.enter_context(cloud(folder / name, podman, registry, base_image))
            _add(file, name, yaml.safe_load((folder / name / "stepops.yaml").read_text()))
            for variable, value in place.environment.items():
                if variable.startswith("AIRFLOW_CONN"):
                    patch.setenv(variable, value)
        _add(file, "azure", _azure(folder / "azure", running, patch, podman, base_image))
        (folder / "stepops.yaml").write_text(yaml.safe_dump(file))
        patch.setenv("STEPOPS_CONFIG", str(folder / "stepops.yaml"))
        airflow = InProcessAirflow(DAGS)
        for name in ("late_arrivals.py", "three_clouds.py"):
            airflow.write(name, (EXAMPLES / name).read_text())
        yield airflow.run("three_clouds", {"airport": "LGA"})
        for path in DAGS.glob("*.py"):
            path.unlink()


def _azure(
    folder: Path, running: ExitStack, patch: pytest.MonkeyPatch, podman: Podman, base_image: str
) -> dict[str, Any]:
    """Start an emulated Azure and return the stack file for it."""
    folder.mkdir()
    azure = running.enter_context(emulated_azure(folder))
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        patch.setenv(variable, str(azure.authority))
    azure.blob_url = running.enter_context(running_azurite(folder / "blobs", azure))
    workspace, acr = AzureML(azure, Compute(podman, azure)), Acr(azure)
    tokens = running.enter_context(token_service(folder))
    tokens.user_of = acr.user_of  # type: ignore[method-assign]
    acr.registry = running.enter_context(running_registry(folder / "registry", auth=tokens.auth))
    host = running.enter_context(serving(acr.answer)).removeprefix("http://")
    acr.passwords["workspace"] = "of the workspace"
    workspace.compute.login = ("workspace", "of the workspace")
    container = f"three-{uuid.uuid4().hex}"
    azure.make_container(container)
    patch.setenv("AIRFLOW_CONN_TO_AZURE", azure.connection())
    store = {"flavor": "azure-blob", "account_name": ACCOUNT, "container": container, "endpoint": azure.blob_url}
    operator = {"flavor": "azureml", "resource_group": GROUP, "workspace_name": WORKSPACE, "base_image": base_image}
    parts = {"artifact_store": "values", "container_registry": "images", "step_operators": ["jobs"]}
    return {
        "artifact_stores": {"values": {**store, "connection": "to_azure"}},
        "container_registries": {"images": {"flavor": "acr", "uri": f"{host}/team", "connection": "to_azure"}},
        "step_operators": {"jobs": {**operator, "connection": "to_azure"}},
        "stacks": {"azure": parts},
    }


def _add(file: dict[str, Any], cloud: str, other: dict[str, Any]) -> None:
    """Add the only stack of a file to another file, under the name of its cloud."""
    for section in ("artifact_stores", "container_registries", "step_operators"):
        (component,) = other[section].values()
        file.setdefault(section, {})[f"{cloud}-{section.replace('_', '-')}"] = component
    file.setdefault("stacks", {})[cloud] = {
        "artifact_store": f"{cloud}-artifact-stores",
        "container_registry": f"{cloud}-container-registries",
        "step_operators": [f"{cloud}-step-operators"],
    }


def test_each_step_runs_on_its_cloud_and_all_find_the_same(run: FinishedRun) -> None:
    assert run.states == dict.fromkeys(["load", "on_aws", "on_gcp", "on_azure", "compare"], "success")
    where = {cloud: run.xcom(f"on_{cloud}", "stepops")["where"] for cloud in ("aws", "gcp", "azure")}
    assert where == {"aws": "sagemaker", "gcp": "vertex", "azure": "azureml"}
    scores = [run.xcom(f"on_{cloud}") for cloud in ("aws", "gcp", "azure")]
    assert scores[0] == scores[1] == scores[2]
    assert run.xcom("compare") is True
