"""The roles and bindings that ``stepops permissions`` prints for Google Cloud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import googleapiclient
import pytest

from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.clouds.gcp.container_registry import GarContainerRegistry, GcrContainerRegistry
from airflow_stepops.clouds.gcp.step_operator import VertexStepOperator
from airflow_stepops.clouds.generic.container_registry import GenericContainerRegistry
from airflow_stepops.clouds.local.artifact_store import LocalArtifactStore
from airflow_stepops.stacks.components import ArtifactStoreComponent, ContainerRegistryComponent
from tests.clouds.gcp.test_guide import PERMISSIONS

AIRFLOW = "serviceAccount:AIRFLOW_SERVICE_ACCOUNT"
JOB = "trainer@steps-on-vertex.iam.gserviceaccount.com"
KEY = "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"


def printed(
    store: ArtifactStoreComponent | None = None, registry: ContainerRegistryComponent | None = None, **settings: Any
) -> dict[str, Any]:
    """Return the documents of a stack; every one of them is JSON."""
    operator = VertexStepOperator(
        **{"region": "europe-west4", "project": "steps-on-vertex", "service_account": JOB, **settings}
    )
    documents = operator.permissions(
        store or GcsArtifactStore(bucket="values"), registry or GarContainerRegistry(location="europe-west4")
    )
    found: dict[str, Any] = json.loads(json.dumps(documents))
    return found


def granted(documents: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    return {(binding["resource"], binding["role"]): binding["members"] for binding in documents["bindings"]}


def fields(api: str, schema: str) -> set[str]:
    """Return the fields of a message, as Google describes its API."""
    folder = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    return set(json.loads((folder / f"{api}.json").read_text())["schemas"][schema]["properties"])


def test_the_worker_may_do_what_a_job_s_life_needs_and_nothing_else() -> None:
    closed = printed(registry=GarContainerRegistry(location="europe-west4", create_repository=False))
    assert closed["worker_role"]["includedPermissions"] == sorted(PERMISSIONS.values())
    making = set(printed()["worker_role"]["includedPermissions"]) - set(PERMISSIONS.values())
    assert making == {"artifactregistry.repositories.create", "artifactregistry.repositories.get"}


def test_airflow_pushes_and_starts_and_the_job_has_the_values_alone() -> None:
    project = "projects/steps-on-vertex"
    assert granted(printed()) == {
        (project, f"{project}/roles/stepops_worker"): [AIRFLOW],
        (f"{project}/serviceAccounts/{JOB}", "roles/iam.serviceAccountUser"): [AIRFLOW],
        ("buckets/values", f"{project}/roles/stepops_values"): [AIRFLOW, f"serviceAccount:{JOB}"],
        (f"{project}/locations/europe-west4/repositories/stepops", "roles/artifactregistry.writer"): [AIRFLOW],
    }


def test_a_store_in_a_folder_gives_the_folder_alone() -> None:
    (binding,) = [
        binding
        for binding in printed(GcsArtifactStore(bucket="values", prefix="team/a"))["bindings"]
        if "condition" in binding
    ]
    assert binding["resource"] == "buckets/values"
    assert 'startsWith("projects/_/buckets/values/objects/team/a/")' in binding["condition"]["expression"]
    assert binding["condition"].keys() <= fields("iam.v1", "Expr")


def test_the_documents_are_google_s() -> None:
    documents = printed(GcsArtifactStore(bucket="values", prefix="a"))
    for name in ("worker_role", "values_role"):
        assert documents[name].keys() <= fields("iam.v1", "Role")
    for binding in documents["bindings"]:
        assert binding.keys() - {"resource"} <= fields("iam.v1", "Binding")


@pytest.mark.parametrize(
    ("registry", "place"),
    [
        (GcrContainerRegistry(host="eu.gcr.io"), "projects/steps-on-vertex/locations/europe/repositories/eu.gcr.io"),
        (GcrContainerRegistry(), "projects/steps-on-vertex/locations/us/repositories/gcr.io"),
    ],
)
def test_images_at_gcr_io_are_in_a_repository_of_that_name(registry: GcrContainerRegistry, place: str) -> None:
    assert (place, "roles/artifactregistry.writer") in granted(printed(registry=registry))


def test_vertex_ai_may_read_images_of_another_project() -> None:
    other = GarContainerRegistry(location="europe", project="images-of-all")
    members = granted(printed(registry=other))
    place = "projects/images-of-all/locations/europe/repositories/stepops"
    assert members[place, "roles/artifactregistry.writer"] == [AIRFLOW]
    assert "gcp-sa-aiplatform.iam" in members[place, "roles/artifactregistry.reader"][0]


def test_settings_that_need_more_say_so() -> None:
    assert (KEY, "roles/cloudkms.cryptoKeyEncrypterDecrypter") in granted(printed(encryption_key=KEY))
    members = granted(printed(experiment_name="churn"))
    assert members["projects/steps-on-vertex", "roles/aiplatform.user"] == [f"serviceAccount:{JOB}"]


def test_what_the_stack_does_not_tell_is_in_capitals_and_what_is_not_google_s_gets_nothing() -> None:
    documents = printed(
        LocalArtifactStore(), GenericContainerRegistry(uri="registry.example.com/a"), project=None, service_account=None
    )
    assert documents.keys() == {"worker_role", "bindings"}
    assert granted(documents) == {("projects/PROJECT_ID", "projects/PROJECT_ID/roles/stepops_worker"): [AIRFLOW]}
