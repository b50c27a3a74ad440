"""A custom role and assignments with the least rights that a stack needs on Azure.

Sources: "Manage access to Azure Machine Learning workspaces: common scenarios", without what uploads code; "Azure
built-in roles for Storage" and "… for Containers".
"""

from __future__ import annotations

from typing import Any

from airflow_stepops.clouds.azure.artifact_store import AzureBlobArtifactStore
from airflow_stepops.clouds.azure.container_registry import AcrContainerRegistry
from airflow_stepops.clouds.azure.step_operator import AzureMLStepOperator
from airflow_stepops.stacks.components import ArtifactStoreComponent, ContainerRegistryComponent

#: What stands for things that the settings do not say.
SUBSCRIPTION = "SUBSCRIPTION_ID"
GROUP = "RESOURCE_GROUP"
AIRFLOW = "AIRFLOW_IDENTITY"
COMPUTE = "COMPUTE_IDENTITY"

#: Name of the custom role.
ROLE = "stepops worker"

_ML = "Microsoft.MachineLearningServices/workspaces"
_ACTIONS = (
    f"{_ML}/read",
    f"{_ML}/computes/read",
    f"{_ML}/environments/build/action",
    f"{_ML}/environments/read",
    f"{_ML}/environments/write",
    f"{_ML}/experiments/runs/read",
    f"{_ML}/jobs/*",
)
#: Of jobs/*, which Microsoft gives as a whole for jobs of any kind.
_NOT = (f"{_ML}/jobs/delete",)

Document = dict[str, Any]


def role_and_assignments(
    operator: AzureMLStepOperator,
    artifact_store: ArtifactStoreComponent,
    container_registry: ContainerRegistryComponent,
) -> dict[str, Any]:
    """Return the documents.

    ``worker_role`` is for ``az role definition create --role-definition``; ``assignments`` say who has which role at
    which scope, each for one ``az role assignment create``. In capitals is what the settings do not tell:
    ``SUBSCRIPTION_ID``, ``RESOURCE_GROUP``, and the identities of the Airflow connection and of the compute that jobs
    run on.

    :param artifact_store: of the stack; one that is not in Blob Storage gets no assignment.
    :param container_registry: of the stack; one that is not Azure's gets no assignment.
    """
    subscription = operator.subscription_id or SUBSCRIPTION
    workspace = _scope(subscription, operator.resource_group, f"{_ML}/{operator.workspace_name}")
    return {
        "worker_role": {
            "Name": ROLE,
            "Description": "Jobs of steps",
            "Actions": list(_ACTIONS),
            "NotActions": list(_NOT),
            # Azure makes no role for one resource: it is assigned at the workspace all the same.
            "AssignableScopes": [workspace.partition("/providers/")[0]],
        },
        "assignments": [
            _assignment(AIRFLOW, ROLE, workspace),
            *_values(artifact_store, subscription, _job(operator)),
            *_images(container_registry, subscription),
        ],
    }


def _job(operator: AzureMLStepOperator) -> str:
    """Return who the job is."""
    names = {"managed": COMPUTE, "user": AIRFLOW, "token": AIRFLOW}
    return names.get(operator.identity, operator.identity)


def _values(store: ArtifactStoreComponent, subscription: str, job: str) -> list[Document]:
    if not isinstance(store, AzureBlobArtifactStore):
        return []
    path = f"Microsoft.Storage/storageAccounts/{store.account_name}/blobServices/default/containers/{store.container}"
    scope = _scope(subscription, store.resource_group or GROUP, path)
    people = [AIRFLOW] if job == AIRFLOW else [AIRFLOW, job]
    return [_assignment(one, "Storage Blob Data Contributor", scope) for one in people]


def _images(registry: ContainerRegistryComponent, subscription: str) -> list[Document]:
    if not isinstance(registry, AcrContainerRegistry):
        return []
    name = registry.uri.partition("/")[0].partition(".")[0].partition("-")[0]
    scope = _scope(subscription, registry.resource_group or GROUP, f"Microsoft.ContainerRegistry/registries/{name}")
    # Whoever the job is: it is its compute that pulls the image.
    return [_assignment(AIRFLOW, "AcrPush", scope), _assignment(COMPUTE, "AcrPull", scope)]


def _scope(subscription: str, group: str, resource: str) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{resource}"


def _assignment(who: str, role: str, scope: str) -> Document:
    return {"assignee": who, "role": role, "scope": scope}
