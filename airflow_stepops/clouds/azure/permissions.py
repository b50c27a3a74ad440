"""Custom roles and assignments with the least rights that a stack needs on Azure.

Sources: "Manage access to Azure Machine Learning workspaces: common scenarios", without what uploads code; "Azure
built-in roles for Storage" and "… for Containers"; "Azure role assignment condition format and syntax"; "Actions and
attributes for Azure role assignment conditions for Azure Blob Storage".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_stepops.clouds.azure.artifact_store import AzureBlobArtifactStore
from airflow_stepops.clouds.azure.container_registry import AcrContainerRegistry
from airflow_stepops.clouds.azure.step_operator import AzureMLStepOperator
from airflow_stepops.clouds.job_objects import DELETED, INPUTS, WRITTEN, below
from airflow_stepops.stacks.components import ArtifactStoreComponent, ContainerRegistryComponent

#: What stands for things that the settings do not say.
SUBSCRIPTION = "SUBSCRIPTION_ID"
GROUP = "RESOURCE_GROUP"
AIRFLOW = "AIRFLOW_IDENTITY"
COMPUTE = "COMPUTE_IDENTITY"

#: Names of the custom roles.
ROLE = "stepops worker"
JOB_ROLE = "stepops job"

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

_BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"

Document = dict[str, Any]


def role_and_assignments(
    operator: AzureMLStepOperator,
    artifact_store: ArtifactStoreComponent,
    container_registry: ContainerRegistryComponent,
) -> dict[str, Any]:
    """Return the documents.

    ``worker_role`` and ``job_role`` are for ``az role definition create --role-definition``; ``assignments`` say who
    has which role at which scope, one of them on a condition, each for one ``az role assignment create``. In capitals
    is what the settings do not tell: ``SUBSCRIPTION_ID``, ``RESOURCE_GROUP``, and the identities of the Airflow
    connection and of the compute that jobs run on. A job that runs as the connection's identity has that one's rights,
    which nothing can narrow: it gets no role.

    :param artifact_store: of the stack; one that is not in Blob Storage gets no assignment.
    :param container_registry: of the stack; one that is not Azure's gets no assignment.
    """
    subscription = operator.subscription_id or SUBSCRIPTION
    workspace = _scope(subscription, operator.resource_group, f"{_ML}/{operator.workspace_name}")
    roles = {"worker_role": _role(ROLE, "Jobs of steps", workspace, Actions=list(_ACTIONS), NotActions=list(_NOT))}
    assignments = [_assignment(AIRFLOW, ROLE, workspace)]
    if isinstance(artifact_store, AzureBlobArtifactStore):
        container = _container(artifact_store, subscription)
        assignments.append(_assignment(AIRFLOW, "Storage Blob Data Contributor", container))
        job = _job(operator)
        if job != AIRFLOW:
            data = [f"{_BLOBS}/{action}" for action in ("delete", "read", "write")]
            roles["job_role"] = _role(JOB_ROLE, "Values of steps", container, Actions=[], DataActions=data)
            condition = {"condition": _condition(artifact_store.prefix), "condition_version": "2.0"}
            assignments.append({**_assignment(job, JOB_ROLE, container), **condition})
    return {**roles, "assignments": [*assignments, *_images(container_registry, subscription)]}


def _job(operator: AzureMLStepOperator) -> str:
    """Return who the job is."""
    names = {"managed": COMPUTE, "user": AIRFLOW, "token": AIRFLOW}
    return names.get(operator.identity, operator.identity)


def _container(store: AzureBlobArtifactStore, subscription: str) -> str:
    path = f"Microsoft.Storage/storageAccounts/{store.account_name}/blobServices/default/containers/{store.container}"
    return _scope(subscription, store.resource_group or GROUP, path)


def _condition(prefix: str) -> str:
    """Return on which condition a job has its role: it reads everything, and writes and deletes what is its own."""
    inputs = f"@Resource[{_BLOBS}:path] StringNotLike '{below(prefix, INPUTS)}'"
    writing = f"(!(ActionMatches{{'{_BLOBS}/write'}})) OR ({_is_one_of(prefix, WRITTEN)} AND {inputs})"
    deleting = f"(!(ActionMatches{{'{_BLOBS}/delete'}})) OR ({_is_one_of(prefix, DELETED)})"
    return f"({writing}) AND ({deleting})"


def _is_one_of(prefix: str, patterns: Sequence[str]) -> str:
    values = ", ".join(f"'{below(prefix, pattern)}'" for pattern in patterns)
    return f"@Resource[{_BLOBS}:path] ForAnyOfAnyValues:StringLike {{{values}}}"


def _images(registry: ContainerRegistryComponent, subscription: str) -> list[Document]:
    if not isinstance(registry, AcrContainerRegistry):
        return []
    name = registry.uri.partition("/")[0].partition(".")[0].partition("-")[0]
    scope = _scope(subscription, registry.resource_group or GROUP, f"Microsoft.ContainerRegistry/registries/{name}")
    # Whoever the job is: it is its compute that pulls the image.
    return [_assignment(AIRFLOW, "AcrPush", scope), _assignment(COMPUTE, "AcrPull", scope)]


def _role(name: str, description: str, resource: str, **rights: list[str]) -> Document:
    # Azure makes no role for one resource: it is assigned at the resource all the same.
    group = resource.partition("/providers/")[0]
    return {"Name": name, "Description": description, **rights, "AssignableScopes": [group]}


def _scope(subscription: str, group: str, resource: str) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{resource}"


def _assignment(who: str, role: str, scope: str) -> Document:
    return {"assignee": who, "role": role, "scope": scope}
