"""An emulated Azure that is reached through Airflow connections alone."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from airflow_stepops.clouds.azure.artifact_store import AzureBlobArtifactStore
from airflow_stepops.clouds.azure.step_operator import AzureMLStepOperator
from airflow_stepops.images.registry.client import RegistryClient
from tests.clouds.azure.acr import Acr
from tests.clouds.azure.azureml import GROUP, WORKSPACE, AzureML
from tests.clouds.azure.compute import Compute
from tests.clouds.azure.emulated import ACCOUNT, EmulatedAzure, emulated_azure, running_azurite
from tests.clouds.azure.ground import OnAzureML
from tests.clouds.gcp.emulated import serving
from tests.clouds.ground import build_image
from tests.engines import BASE_PYTHON, Podman, running_registry
from tests.images.faults import FaultyProxy, faulty_proxy
from tests.images.token_service import token_service

Connect = Callable[..., str]

_OF_AZURE = ("AZURE_", "MSI_", "IDENTITY_", "AZUREML_")


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_this_machine() -> Iterator[None]:
    """No credentials and settings but those of a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_OF_AZURE)]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAzure]:
    """The emulated Azure, the same one for all tests; who trusts it is this process, and those that it starts."""
    folder = tmp_path_factory.mktemp("azure")
    with emulated_azure(folder) as running, pytest.MonkeyPatch.context() as patch:
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            patch.setenv(name, str(running.authority))
        with running_azurite(folder / "blobs", running) as running.blob_url:
            yield running


@pytest.fixture
def connect(azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Add an Airflow connection to the emulated Azure: ``connect(login=…, password=…, **extra)`` returns its id."""

    def add(*login: str | None, **extra: Any) -> str:
        name = f"azure_{uuid.uuid4().hex}"
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", azure.connection(*login, **extra))
        return name

    return add


@pytest.fixture
def connection(connect: Connect) -> str:
    """Id of an Airflow connection to the emulated Azure."""
    return connect()


@pytest.fixture(scope="session")
def registry_of_azure(azure: EmulatedAzure, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Acr, str]]:
    """A registry whose logins are exchanged for tokens of the emulated Entra ID, and its ``host:port``."""
    folder = tmp_path_factory.mktemp("acr")
    acr = Acr(azure)
    with token_service(folder) as tokens:
        tokens.user_of = acr.user_of  # type: ignore[method-assign]
        acr.tokens = tokens
        with (
            running_registry(folder / "registry", auth=tokens.auth) as acr.registry,
            serving(acr.answer) as url,
        ):
            yield acr, url.removeprefix("http://")


@pytest.fixture
def acr(registry_of_azure: tuple[Acr, str]) -> Acr:
    """The emulated registry's logins."""
    return registry_of_azure[0]


@pytest.fixture
def acr_front(registry_of_azure: tuple[Acr, str]) -> Iterator[FaultyProxy]:
    """The emulated registry, at ``acr_front.host``; its requests are seen, and may be broken."""
    with faulty_proxy(registry_of_azure[1]) as front:
        yield front


@pytest.fixture(scope="session")
def workspace(azure: EmulatedAzure, podman: Podman) -> AzureML:
    """Azure ML in the emulated Azure."""
    return AzureML(azure, Compute(podman, azure))


@pytest.fixture(scope="session")
def airflow_settings(
    azure: EmulatedAzure,
    workspace: AzureML,
    registry_of_azure: tuple[Acr, str],
    base_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What makes the stack ``azure`` of the examples the emulated one: variables of Airflow's processes."""
    container = f"pipeline-{uuid.uuid4().hex}"
    azure.make_container(container)
    acr, host = registry_of_azure
    acr.passwords["workspace"] = "of the workspace"
    workspace.compute.login = ("workspace", "of the workspace")
    stack = {
        "version": 1,
        "artifact_stores": {
            "blobs": {
                "flavor": "azure-blob",
                "account_name": ACCOUNT,
                "container": container,
                "prefix": "team",
                "connection": "emulated_azure",
                "endpoint": azure.blob_url,
            },
        },
        "container_registries": {
            "acr": {"flavor": "acr", "uri": f"{host}/team", "connection": "emulated_azure"},
        },
        "step_operators": {
            "azureml": {
                "flavor": "azureml",
                "resource_group": GROUP,
                "workspace_name": WORKSPACE,
                "connection": "emulated_azure",
                "base_image": base_image,
            }
        },
        "stacks": {"azure": {"artifact_store": "blobs", "container_registry": "acr", "step_operators": ["azureml"]}},
    }
    file = tmp_path_factory.mktemp("azure") / "stepops.yaml"
    file.write_text(yaml.safe_dump(stack))
    return {"STEPOPS_CONFIG": str(file), "AIRFLOW_CONN_EMULATED_AZURE": azure.connection()}


@pytest.fixture(scope="session")
def ground(
    azure: EmulatedAzure, workspace: AzureML, at_home: pytest.MonkeyPatch, registry: str, base_image: str
) -> OnAzureML:
    """A place to run jobs in, reached through an Airflow connection."""
    at_home.setenv("AIRFLOW_CONN_JOBS_AZURE", azure.connection())
    component = AzureMLStepOperator(
        resource_group=GROUP, workspace_name=WORKSPACE, connection="jobs_azure", base_image=base_image
    )
    container = f"jobs-{uuid.uuid4().hex}"
    azure.make_container(container)
    values = AzureBlobArtifactStore(
        account_name=ACCOUNT, container=container, prefix="team", connection="jobs_azure", endpoint=azure.blob_url
    )
    repository = RegistryClient(f"{registry}/clouds/azureml")
    return OnAzureML(
        connect=component.connect,
        kill=lambda job_id: workspace.compute.podman.run("kill", "--signal", "KILL", f"azureml-{job_id}-0") and None,
        repository=repository,
        image=build_image(repository, base_image, python=BASE_PYTHON),
        store=values.open(),
        component=component,
        values=values,
    )
