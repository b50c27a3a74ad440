"""The roles and bindings that ``stepops permissions`` prints for Google Cloud."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import googleapiclient
import pytest
from hypothesis import given

from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.clouds.gcp.container_registry import GarContainerRegistry, GcrContainerRegistry
from airflow_stepops.clouds.gcp.step_operator import VertexStepOperator
from airflow_stepops.clouds.generic.container_registry import GenericContainerRegistry
from airflow_stepops.clouds.local.artifact_store import LocalArtifactStore
from airflow_stepops.stacks.components import ArtifactStoreComponent, ContainerRegistryComponent
from tests.clouds.gcp.emulated import JOB, WORKER, EmulatedGcp
from tests.clouds.gcp.iam import Text, allows, guarded
from tests.clouds.gcp.storage import StorageFront
from tests.clouds.gcp.test_guide import PERMISSIONS
from tests.clouds.rights_of_jobs import ELSEWHERE, KEPT, PLAINLY_WRITTEN, PolicedJob
from tests.runtime.conftest import StepImage, image, runtime_layer  # noqa: F401 - the fixtures

AIRFLOW = "serviceAccount:AIRFLOW_SERVICE_ACCOUNT"
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
    """Return what is given without a condition."""
    return {
        (binding["resource"], binding["role"]): binding["members"]
        for binding in documents["bindings"]
        if "condition" not in binding
    }


def fields(api: str, schema: str) -> set[str]:
    """Return the fields of a message, as Google describes its API."""
    folder = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    return set(json.loads((folder / f"{api}.json").read_text())["schemas"][schema]["properties"])


def test_the_worker_may_do_what_a_job_s_life_needs_and_nothing_else() -> None:
    closed = printed(registry=GarContainerRegistry(location="europe-west4", create_repository=False))
    assert closed["worker_role"]["includedPermissions"] == sorted(PERMISSIONS.values())
    making = set(printed()["worker_role"]["includedPermissions"]) - set(PERMISSIONS.values())
    assert making == {"artifactregistry.repositories.create", "artifactregistry.repositories.get"}


def test_airflow_pushes_and_starts_and_the_job_reads_the_values_alone() -> None:
    project = "projects/steps-on-vertex"
    assert granted(printed()) == {
        (project, f"{project}/roles/stepops_worker"): [AIRFLOW],
        (f"{project}/serviceAccounts/{JOB}", "roles/iam.serviceAccountUser"): [AIRFLOW],
        ("buckets/values", f"{project}/roles/stepops_reading"): [AIRFLOW, f"serviceAccount:{JOB}"],
        ("buckets/values", f"{project}/roles/stepops_writing"): [AIRFLOW],
        (f"{project}/locations/europe-west4/repositories/stepops", "roles/artifactregistry.writer"): [AIRFLOW],
    }


def test_a_store_in_a_folder_gives_the_folder_alone() -> None:
    documents = printed(GcsArtifactStore(bucket="values", prefix="team/a"))
    objects = "projects/_/buckets/values/objects"
    for member in (AIRFLOW, f"serviceAccount:{JOB}"):
        assert allows(documents, member, "storage.objects.get", f"{objects}/team/a/runs/x")
        assert not allows(documents, member, "storage.objects.get", f"{objects}/team/b/runs/x")
        assert allows(documents, member, "storage.objects.list", "projects/_/buckets/values", "team/a/runs/")
        assert not allows(documents, member, "storage.objects.list", "projects/_/buckets/values", "team/b/runs/")
    assert allows(documents, AIRFLOW, "storage.objects.create", f"{objects}/team/a/stepops.yaml")
    assert not allows(documents, AIRFLOW, "storage.objects.create", f"{objects}/team/b/stepops.yaml")


def test_the_documents_are_google_s() -> None:
    documents = printed(GcsArtifactStore(bucket="values", prefix="a"))
    for name in ("worker_role", "reading_role", "writing_role"):
        assert documents[name].keys() <= fields("iam.v1", "Role")
    for binding in documents["bindings"]:
        assert binding.keys() - {"resource"} <= fields("iam.v1", "Binding")
        condition = binding.get("condition", {"expression": ""})
        assert condition.keys() <= fields("iam.v1", "Expr")
        assert len(re.findall(r"&&|\|\||!(?!=)", condition["expression"])) <= 12


#: Of the page "Attribute reference for IAM Conditions".
ORDERS = "projects/_/buckets/acme-orders-aaa/objects/data_lake/orders/order_date=2019-11-03/aef87g87ae0876"


@pytest.mark.parametrize(
    ("template", "extracted"),
    [
        ("/order_date={date}/", "2019-11-03"),
        ("buckets/{name}/", "acme-orders-aaa"),
        ("/orders/{empty}order_date", ""),
        ("{start}/objects/data_lake", "projects/_/buckets/acme-orders-aaa"),
        ("orders/{end}", "order_date=2019-11-03/aef87g87ae0876"),
        ("{all}", ORDERS),
        ("/orders/{none}/order_date=", ""),
        ("/orders/order_date=2019-11-03/{id}/data_lake", ""),
    ],
)
def test_conditions_are_read_here_as_google_says_that_it_reads_them(template: str, extracted: str) -> None:
    assert Text(ORDERS).extract(template) == extracted


@pytest.fixture
def job(
    gcp: EmulatedGcp,
    storage: StorageFront,
    connection: str,
    image: StepImage,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> PolicedJob:
    """A job that has the rights of the printed bindings and no others."""
    bucket = f"rights-{uuid.uuid4().hex}"
    storage.make_bucket(bucket)
    store = GcsArtifactStore(bucket=bucket, prefix="team", connection=connection)
    documents = json.loads(json.dumps(printed(store)).replace(AIRFLOW, f"serviceAccount:{WORKER}"))
    monkeypatch.setitem(gcp.apis, "storage", guarded(gcp.apis["storage"], documents, storage.keys))
    (tmp_path / "key.json").write_text(json.dumps(gcp.key(JOB)))
    key = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    return PolicedJob(image, store.open(), {**store.job_environment(), **key})


def test_a_job_works_with_the_rights_of_its_bindings(job: PolicedJob) -> None:
    job.works()


def test_a_job_can_forge_nothing_of_what_airflow_writes(job: PolicedJob) -> None:
    job.forges_nothing()


_DOCUMENTS = printed(GcsArtifactStore(bucket="values", prefix="team"))


def writes(path: str) -> bool:
    """Whether a job may write an object of the store, which takes the right to delete too."""
    name, member = f"projects/_/buckets/values/objects/team/{path}", f"serviceAccount:{JOB}"
    found = {allows(_DOCUMENTS, member, f"storage.objects.{verb}", name) for verb in ("create", "delete")}
    assert len(found) == 1
    return found.pop()


@given(path=KEPT | ELSEWHERE)
def test_whatever_names_are_a_job_does_not_write_what_airflow_writes(path: str) -> None:
    assert not writes(path)


@given(path=PLAINLY_WRITTEN)
def test_a_job_writes_what_is_its_own(path: str) -> None:
    assert writes(path)


@pytest.mark.parametrize(
    ("folder", "refused"),
    [
        ("outputs/daily/train", set()),
        ("churn/outputs/live", set()),
        ("churn/daily/attempt-1", {"checkpoints"}),
        ("churn/checkpoints/machine-1", {"checkpoints"}),
        ("outputs/attempt-1/train", {"outputs", "checkpoints"}),
    ],
)
def test_names_that_look_like_parts_of_the_layout_may_cost_a_job_its_rights(folder: str, refused: set[str]) -> None:
    instance = f"runs/{folder}/-1/0195c3a2"
    own = {
        "result": f"{instance}/attempt-2/result.json",
        "outputs": f"{instance}/attempt-2/outputs/job.json",
        "live": f"{instance}/attempt-2/live/0.json",
        "checkpoints": f"{instance}/checkpoints/machine-0/attempt-2/begun",
    }
    assert {kind for kind, path in own.items() if not writes(path)} == refused


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
