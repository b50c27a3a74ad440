"""The role and assignments that ``stepops permissions`` prints for Azure."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given

from airflow_stepops.clouds.azure.artifact_store import AzureBlobArtifactStore
from airflow_stepops.clouds.azure.container_registry import AcrContainerRegistry
from airflow_stepops.clouds.azure.step_operator import AzureMLStepOperator
from airflow_stepops.clouds.generic.container_registry import GenericContainerRegistry
from airflow_stepops.clouds.local.artifact_store import LocalArtifactStore
from airflow_stepops.stacks.components import ArtifactStoreComponent, ContainerRegistryComponent
from tests.clouds.azure.conditions import BLOBS, allows, gate
from tests.clouds.azure.emulated import ACCOUNT, IDENTITY, EmulatedAzure
from tests.clouds.rights_of_jobs import ELSEWHERE, KEPT, WRITTEN, PolicedJob
from tests.images.faults import Tls, faulty_proxy
from tests.runtime.conftest import StepImage, image, runtime_layer  # noqa: F401 - the fixtures

SUBSCRIPTION = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
WORKSPACE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/ml/providers/Microsoft.MachineLearningServices/workspaces/team"
)
VALUES = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/RESOURCE_GROUP/providers/Microsoft.Storage/storageAccounts/values"
    "/blobServices/default/containers/steps"
)
IMAGES = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/images/providers/Microsoft.ContainerRegistry/registries/ourteam"
REGISTRY = AcrContainerRegistry(uri="ourteam-a1b2.azurecr.io/steps", resource_group="images")
ML = "Microsoft.MachineLearningServices/workspaces"

#: Call that the job service makes → what it takes.
NEEDED = {
    "GET …": f"{ML}/read",
    "GET …/jobs/x": f"{ML}/jobs/read",
    "PUT …/jobs/x": f"{ML}/jobs/write",
    "POST …/jobs/x/cancel": f"{ML}/jobs/cancel/action",
    "GET …/environments/x/versions/y": f"{ML}/environments/read",
    "PUT …/environments/x/versions/y": f"{ML}/environments/write",
    "GET …/runs/x/details": f"{ML}/experiments/runs/read",
}


def printed(
    store: ArtifactStoreComponent | None = None,
    registry: ContainerRegistryComponent = REGISTRY,
    **settings: Any,
) -> dict[str, Any]:
    """Return the documents of a stack; every one of them is JSON."""
    place = {"subscription_id": SUBSCRIPTION, "resource_group": "ml", "workspace_name": "team"}
    operator = AzureMLStepOperator(**{**place, **settings})
    values = store or AzureBlobArtifactStore(account_name="values", container="steps")
    found: dict[str, Any] = json.loads(json.dumps(operator.permissions(values, registry)))
    return found


def granted(documents: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(one["assignee"], one["role"], one["scope"]) for one in documents["assignments"]}


@pytest.mark.parametrize("action", NEEDED.values())
def test_the_worker_may_make_each_call_of_a_job_s_life(action: str) -> None:
    role = printed()["worker_role"]
    assert any(fnmatchcase(action, allowed) for allowed in role["Actions"])
    assert not any(fnmatchcase(action, denied) for denied in role["NotActions"])


@pytest.mark.parametrize(
    "action",
    [f"{ML}/write", f"{ML}/delete", f"{ML}/jobs/delete", f"{ML}/computes/write", f"{ML}/listKeys/action"],
)
def test_the_worker_may_do_nothing_else(action: str) -> None:
    role = printed()["worker_role"]
    is_allowed = any(fnmatchcase(action, allowed) for allowed in role["Actions"])
    assert not is_allowed or action in role["NotActions"]


def test_the_role_is_one_of_the_workspace_alone() -> None:
    role = printed()["worker_role"]
    assert role.keys() == {"Name", "Description", "Actions", "NotActions", "AssignableScopes"}
    assert role["AssignableScopes"] == [WORKSPACE.partition("/providers/")[0]]
    assert all(re.fullmatch(r"[\w.]+(/(\w+|\*))+", action) for action in role["Actions"])


def test_airflow_starts_jobs_and_pushes_images_and_the_job_has_the_values_alone() -> None:
    assert granted(printed()) == {
        ("AIRFLOW_IDENTITY", "stepops worker", WORKSPACE),
        ("AIRFLOW_IDENTITY", "Storage Blob Data Contributor", VALUES),
        ("COMPUTE_IDENTITY", "stepops job", VALUES),
        ("AIRFLOW_IDENTITY", "AcrPush", IMAGES),
        ("COMPUTE_IDENTITY", "AcrPull", IMAGES),
    }


@pytest.mark.parametrize(
    ("identity", "job"), [("managed", {"COMPUTE_IDENTITY"}), (SUBSCRIPTION, {SUBSCRIPTION}), ("user", set())]
)
def test_the_job_s_identity_is_the_one_that_the_settings_say(identity: str, job: set[str]) -> None:
    documents = printed(identity=identity)
    people = {assignee: role for assignee, role, scope in granted(documents) if scope == VALUES}
    assert people == {"AIRFLOW_IDENTITY": "Storage Blob Data Contributor", **dict.fromkeys(job, "stepops job")}
    assert ("job_role" in documents) == bool(job)


def test_the_job_s_role_is_one_of_blobs_alone() -> None:
    role = printed()["job_role"]
    assert role.keys() == {"Name", "Description", "Actions", "DataActions", "AssignableScopes"}
    assert role["Actions"] == []
    assert role["AssignableScopes"] == [VALUES.partition("/providers/")[0]]
    assert {action.rpartition("/")[0] for action in role["DataActions"]} == {BLOBS}


@pytest.fixture
def job(
    azure: EmulatedAzure,
    connection: str,
    image: StepImage,  # noqa: F811
) -> Iterator[PolicedJob]:
    """A job that has the rights of the printed assignments and no others."""
    container = f"rights-{uuid.uuid4().hex}"
    azure.make_container(container)
    place = {"account_name": ACCOUNT, "container": container, "prefix": "team", "connection": connection}
    documents = printed(AzureBlobArtifactStore(**place))
    tls = Tls(azure.tls[0], azure.tls[1], azure.authority)
    upstream = azure.blob_url.removeprefix("https://").partition("/")[0]
    with faulty_proxy(upstream, gate(azure, documents, {IDENTITY: "COMPUTE_IDENTITY"}), tls=tls) as front:
        store = AzureBlobArtifactStore(**place, endpoint=f"https://{front.host}/{ACCOUNT}")
        trusted = {"SSL_CERT_FILE": str(azure.authority)}
        yield PolicedJob(image, store.open(), {**store.job_environment(), **azure.identity, **trusted})


def test_a_job_works_with_the_rights_of_its_role(job: PolicedJob) -> None:
    job.works()


def test_a_job_can_forge_nothing_of_what_airflow_writes(job: PolicedJob) -> None:
    job.forges_nothing()


_DOCUMENTS = printed(AzureBlobArtifactStore(account_name="values", container="steps", prefix="team"))


def may(verb: str, path: str) -> bool:
    return allows(_DOCUMENTS, "COMPUTE_IDENTITY", f"{BLOBS}/{verb}", f"team/{path}")


@given(path=KEPT | ELSEWHERE)
def test_whatever_names_are_a_job_does_not_write_what_airflow_writes(path: str) -> None:
    assert (may("write", path), may("delete", path), may("read", path)) == (False, False, True)


@given(path=WRITTEN)
def test_whatever_names_are_a_job_writes_what_is_its_own(path: str) -> None:
    assert may("write", path)
    assert may("delete", path) == ("/checkpoints/machine-3/" in path)


def test_quotes_and_stars_in_a_folder_s_name_do_not_change_the_condition() -> None:
    odd = printed(AzureBlobArtifactStore(account_name="values", container="steps", prefix="it's*"))
    path = "runs/churn/daily/train/-1/0195c3a2/attempt-1/result.json"
    for folder, is_allowed in (("it's*", True), ("it's", False), ("it's-another", False)):
        assert allows(odd, "COMPUTE_IDENTITY", f"{BLOBS}/write", f"{folder}/{path}") == is_allowed


def test_what_the_stack_does_not_tell_is_in_capitals_and_what_is_not_azure_s_gets_nothing() -> None:
    elsewhere = GenericContainerRegistry(uri="registry.example.com/steps")
    documents = printed(LocalArtifactStore(), elsewhere, subscription_id=None)
    scope = WORKSPACE.replace(SUBSCRIPTION, "SUBSCRIPTION_ID")
    assert granted(documents) == {("AIRFLOW_IDENTITY", "stepops worker", scope)}
