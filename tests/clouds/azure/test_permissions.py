"""The role and assignments that ``stepops permissions`` prints for Azure."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import Any

import pytest

from airflow_stepops.clouds.azure.artifact_store import AzureBlobArtifactStore
from airflow_stepops.clouds.azure.container_registry import AcrContainerRegistry
from airflow_stepops.clouds.azure.step_operator import AzureMLStepOperator
from airflow_stepops.clouds.generic.container_registry import GenericContainerRegistry
from airflow_stepops.clouds.local.artifact_store import LocalArtifactStore
from airflow_stepops.stacks.components import ArtifactStoreComponent, ContainerRegistryComponent

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
    contributor = "Storage Blob Data Contributor"
    assert granted(printed()) == {
        ("AIRFLOW_IDENTITY", "stepops worker", WORKSPACE),
        ("AIRFLOW_IDENTITY", contributor, VALUES),
        ("COMPUTE_IDENTITY", contributor, VALUES),
        ("AIRFLOW_IDENTITY", "AcrPush", IMAGES),
        ("COMPUTE_IDENTITY", "AcrPull", IMAGES),
    }


@pytest.mark.parametrize(
    ("identity", "who"),
    [
        ("managed", {"AIRFLOW_IDENTITY", "COMPUTE_IDENTITY"}),
        ("user", {"AIRFLOW_IDENTITY"}),
        (SUBSCRIPTION, {"AIRFLOW_IDENTITY", SUBSCRIPTION}),
    ],
)
def test_the_job_s_identity_is_the_one_that_the_settings_say(identity: str, who: set[str]) -> None:
    found = granted(printed(identity=identity))
    assert {assignee for assignee, role, _ in found if role == "Storage Blob Data Contributor"} == who


def test_what_the_stack_does_not_tell_is_in_capitals_and_what_is_not_azure_s_gets_nothing() -> None:
    elsewhere = GenericContainerRegistry(uri="registry.example.com/steps")
    documents = printed(LocalArtifactStore(), elsewhere, subscription_id=None)
    scope = WORKSPACE.replace(SUBSCRIPTION, "SUBSCRIPTION_ID")
    assert granted(documents) == {("AIRFLOW_IDENTITY", "stepops worker", scope)}
