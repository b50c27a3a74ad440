"""An emulated Google Cloud that is reached through Airflow connections alone."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.clouds.gcp.step_operator import VertexStepOperator
from airflow_stepops.images.registry.client import RegistryClient
from tests.clouds.gcp.artifact_registry import ArtifactRegistry, GarFront, registry_user
from tests.clouds.gcp.cloud_logging import CloudLogging
from tests.clouds.gcp.emulated import JOB, EmulatedGcp, emulated_gcp, metadata_server
from tests.clouds.gcp.ground import OnVertex
from tests.clouds.gcp.storage import StorageFront, emulated_storage
from tests.clouds.gcp.vertex import REGION, Vertex
from tests.clouds.ground import build_image
from tests.engines import BASE_PYTHON, Podman, running_registry
from tests.images.faults import FaultyProxy, faulty_proxy
from tests.images.token_service import token_service

Connect = Callable[..., str]

_OF_GOOGLE = ("GOOGLE_", "GCLOUD_", "GCE_METADATA", "CLOUDSDK_", "STORAGE_EMULATOR_")


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No credentials and settings but those of a test; no service that gives a machine its service account."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_OF_GOOGLE)]:
            patch.delenv(name)
        patch.setenv("NO_GCE_CHECK", "true")
        patch.setenv("CLOUDSDK_CONFIG", str(tmp_path_factory.mktemp("gcloud")))
        yield


@pytest.fixture(scope="session")
def gcp() -> Iterator[EmulatedGcp]:
    """The emulated Google Cloud, the same one for all tests."""
    with emulated_gcp() as running:
        yield running


@pytest.fixture(scope="session")
def storage(gcp: EmulatedGcp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageFront]:
    """The emulated Cloud Storage."""
    with emulated_storage(gcp, tmp_path_factory.mktemp("storage")) as running:
        yield running


@pytest.fixture
def connect(gcp: EmulatedGcp, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Add an Airflow connection to the emulated Google Cloud: ``connect(**extra)`` returns its id.

    It holds the key of a service account, unless the extra says something else of where credentials come from.
    """

    def add(**extra: Any) -> str:
        name = f"gcp_{uuid.uuid4().hex}"
        document = {"keyfile_dict": gcp.key(), "api_endpoint_overrides": gcp.overrides, **extra}
        connection = {"conn_type": "google_cloud_platform", "extra": document}
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
        return name

    return add


@pytest.fixture
def connection(connect: Connect) -> str:
    """Id of an Airflow connection to the emulated Google Cloud."""
    return connect()


@pytest.fixture(scope="session")
def artifact_registry(gcp: EmulatedGcp) -> ArtifactRegistry:
    """The emulated API of Artifact Registry."""
    api = gcp.apis["artifactregistry"] = ArtifactRegistry()
    return api


@pytest.fixture(scope="session")
def google_registry(gcp: EmulatedGcp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of a registry whose logins are access tokens of the emulated Google Cloud."""
    folder = tmp_path_factory.mktemp("google-registry")
    with token_service(folder) as tokens:
        tokens.user_of = partial(registry_user, gcp)  # type: ignore[method-assign]
        with running_registry(folder / "registry", auth=tokens.auth) as host:
            yield host


@pytest.fixture
def gar(artifact_registry: ArtifactRegistry, google_registry: str) -> Iterator[FaultyProxy]:
    """The registry that belongs to the emulated API, at ``gar.host``; its requests are seen, and may be broken."""
    with faulty_proxy(google_registry, GarFront(artifact_registry)) as front:
        yield front


@pytest.fixture(scope="session")
def emulated(gcp: EmulatedGcp, podman: Podman) -> Iterator[Vertex]:
    """Vertex AI and Cloud Logging in the emulated Google Cloud."""
    with metadata_server(gcp) as address:
        vertex = Vertex(gcp, podman, CloudLogging(), address)
        gcp.apis |= {"aiplatform": vertex, "logging": vertex.logging}
        yield vertex


@pytest.fixture(scope="session")
def pulled_from(artifact_registry: ArtifactRegistry, google_registry: str) -> Iterator[FaultyProxy]:
    """The registry of the emulated Google Cloud, the same one for all tests of pipelines."""
    with faulty_proxy(google_registry, GarFront(artifact_registry)) as front:
        yield front


@pytest.fixture(scope="session")
def airflow_settings(
    gcp: EmulatedGcp,
    storage: StorageFront,
    emulated: Vertex,
    pulled_from: FaultyProxy,
    base_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What makes the stack ``gcp`` of the examples the emulated one: variables of Airflow's processes."""
    bucket = f"pipeline-{uuid.uuid4().hex}"
    storage.make_bucket(bucket)
    stack = {
        "version": 1,
        "artifact_stores": {
            "gcs": {"flavor": "gcs", "bucket": bucket, "prefix": "team", "connection": "emulated_gcp"},
        },
        "container_registries": {
            "gar": {"flavor": "gar", "location": REGION, "repository": "steps", "connection": "emulated_gcp"},
        },
        "step_operators": {
            "vertex": {
                "flavor": "vertex",
                "region": REGION,
                "service_account": JOB,
                "connection": "emulated_gcp",
                "base_image": base_image,
            }
        },
        "stacks": {"gcp": {"artifact_store": "gcs", "container_registry": "gar", "step_operators": ["vertex"]}},
    }
    file = tmp_path_factory.mktemp("gcp") / "stepops.yaml"
    file.write_text(yaml.safe_dump(stack))
    places = {**gcp.overrides, "docker": f"http://{pulled_from.host}"}
    extra = {"keyfile_dict": gcp.key(), "api_endpoint_overrides": places}
    connection = {"conn_type": "google_cloud_platform", "extra": extra}
    return {"STEPOPS_CONFIG": str(file), "AIRFLOW_CONN_EMULATED_GCP": json.dumps(connection)}


@pytest.fixture(scope="session")
def ground(
    gcp: EmulatedGcp,
    storage: StorageFront,
    emulated: Vertex,
    at_home: pytest.MonkeyPatch,
    registry: str,
    base_image: str,
) -> OnVertex:
    """A place to run jobs in, reached through an Airflow connection."""
    bucket = f"jobs-{uuid.uuid4().hex}"
    storage.make_bucket(bucket)
    extra = {"keyfile_dict": gcp.key(), "api_endpoint_overrides": gcp.overrides}
    connection = {"conn_type": "google_cloud_platform", "extra": extra}
    at_home.setenv("AIRFLOW_CONN_JOBS_GCP", json.dumps(connection))
    values = GcsArtifactStore(bucket=bucket, prefix="team", connection="jobs_gcp")
    component = VertexStepOperator(region=REGION, service_account=JOB, connection="jobs_gcp", base_image=base_image)
    repository = RegistryClient(f"{registry}/clouds/vertex")
    return OnVertex(
        connect=component.connect,
        kill=lambda job_id: emulated.podman.run("kill", "--signal", "KILL", f"vertex-{job_id}-workerpool0-0") and None,
        repository=repository,
        image=build_image(repository, base_image, python=BASE_PYTHON),
        store=values.open(),
        component=component,
        values=values,
    )
