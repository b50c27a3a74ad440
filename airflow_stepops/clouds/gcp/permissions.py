"""Roles and bindings with the least rights that a stack needs on Google Cloud.

Sources: "IAM permissions for XML requests" of Cloud Storage, which are what obstore sends; "Vertex AI access control
with IAM"; "Artifact Registry: roles and permissions".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_stepops.clouds.gcp import job_objects
from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.clouds.gcp.container_registry import (
    LOCATIONS,
    GarContainerRegistry,
    GcrContainerRegistry,
)
from airflow_stepops.clouds.gcp.step_operator import VertexStepOperator
from airflow_stepops.stacks.components import ArtifactStoreComponent, ContainerRegistryComponent

#: What stands for things that the settings do not say.
PROJECT = "PROJECT_ID"
AIRFLOW = "serviceAccount:AIRFLOW_SERVICE_ACCOUNT"
_JOB = "serviceAccount:service-PROJECT_NUMBER@gcp-sa-aiplatform-cc.iam.gserviceaccount.com"
_VERTEX = "serviceAccount:service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com"

_JOBS = (
    "aiplatform.customJobs.cancel",
    "aiplatform.customJobs.create",
    "aiplatform.customJobs.get",
    "aiplatform.customJobs.list",
    "logging.logEntries.list",
)
#: Parts of an upload are nothing without the right to create their object.
_READING = (
    "storage.multipartUploads.abort",
    "storage.multipartUploads.create",
    "storage.multipartUploads.listParts",
    "storage.objects.get",
    "storage.objects.list",
)
#: Who may not delete may not overwrite: also when a request is sent again whose answer was lost.
_WRITING = ("storage.objects.create", "storage.objects.delete")

Document = dict[str, Any]


def roles_and_bindings(
    operator: VertexStepOperator,
    artifact_store: ArtifactStoreComponent,
    container_registry: ContainerRegistryComponent,
) -> dict[str, Any]:
    """Return the documents.

    ``worker_role``, ``reading_role`` and ``writing_role`` are custom roles for ``gcloud iam roles create
    stepops_worker``, ``stepops_reading`` and ``stepops_writing``, with ``--file``; ``bindings`` say who has a role on
    which resource, some on a condition, which a bucket takes only with uniform bucket-level access. In capitals is what
    the settings do not tell: ``PROJECT_ID``, ``PROJECT_NUMBER`` and ``AIRFLOW_SERVICE_ACCOUNT``, the identity of the
    Airflow connections.

    :param artifact_store: of the stack; one that is not in Cloud Storage gets no binding.
    :param container_registry: of the stack; one that is not Google's gets no binding.
    """
    project = _project(operator, container_registry)
    job = f"serviceAccount:{operator.service_account}" if operator.service_account else _JOB
    registry = container_registry if isinstance(container_registry, GarContainerRegistry) else None
    permissions = [*_JOBS]
    if registry is not None and registry.create_repository:
        permissions += ["artifactregistry.repositories.create", "artifactregistry.repositories.get"]
    bindings = [_binding(f"projects/{project}", _custom(project, "stepops_worker"), [AIRFLOW])]
    if operator.service_account:
        place = f"projects/{project}/serviceAccounts/{operator.service_account}"
        bindings.append(_binding(place, "roles/iam.serviceAccountUser", [AIRFLOW]))
    documents = {"worker_role": _role("Jobs of steps", permissions)}
    if isinstance(artifact_store, GcsArtifactStore):
        documents["reading_role"] = _role("Reading values of steps", _READING)
        documents["writing_role"] = _role("Writing values of steps", _WRITING)
        bindings += _values(artifact_store, project, job)
    bindings += _images(container_registry, project)
    return {**documents, "bindings": [*bindings, *_job_extras(operator, project, job)]}


def _project(operator: VertexStepOperator, container_registry: ContainerRegistryComponent) -> str:
    of_registry = getattr(container_registry, "project", None)
    return operator.project or of_registry or PROJECT


def _values(store: GcsArtifactStore, project: str, job: str) -> list[Document]:
    bucket, names = f"buckets/{store.bucket}", f"projects/_/buckets/{store.bucket}/objects/"
    reading, writing = _custom(project, "stepops_reading"), _custom(project, "stepops_writing")
    folder = f"{store.prefix}/" if store.prefix else ""
    objects = f'resource.name.startsWith("{names}{folder}")'
    listed = f'api.getAttribute("storage.googleapis.com/objectListPrefix", "").startsWith("{folder}")'
    values = _condition("values of steps", f"{objects} || {listed}") if folder else {}
    written = job_objects.conditions(f"{names}{folder}")
    return [
        {**_binding(bucket, reading, [AIRFLOW, job]), **values},
        {**_binding(bucket, writing, [AIRFLOW]), **values},
        *({**_binding(bucket, writing, [job]), **_condition(*one)} for one in written.items()),
    ]


def _images(registry: ContainerRegistryComponent, project: str) -> list[Document]:
    if isinstance(registry, GarContainerRegistry):
        location, name = registry.location, registry.repository
    elif isinstance(registry, GcrContainerRegistry):
        location, name = LOCATIONS[registry.host], registry.host
    else:
        return []
    home = registry.project or project
    place = f"projects/{home}/locations/{location}/repositories/{name}"
    # Vertex AI itself pulls the image, and may so in its own project.
    foreign = [] if home == project else [_binding(place, "roles/artifactregistry.reader", [_VERTEX])]
    return [_binding(place, "roles/artifactregistry.writer", [AIRFLOW]), *foreign]


def _job_extras(operator: VertexStepOperator, project: str, job: str) -> list[Document]:
    """Return what some settings alone need."""
    bindings = []
    if operator.encryption_key:
        role = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
        bindings.append(_binding(operator.encryption_key, role, [_VERTEX]))
    if operator.experiment_name or operator.tensorboard:
        bindings.append(_binding(f"projects/{project}", "roles/aiplatform.user", [job]))
    return bindings


def _custom(project: str, role: str) -> str:
    return f"projects/{project}/roles/{role}"


def _role(title: str, permissions: Sequence[str]) -> Document:
    return {"title": title, "stage": "GA", "includedPermissions": sorted(permissions)}


def _binding(resource: str, role: str, members: Sequence[str]) -> Document:
    return {"resource": resource, "role": role, "members": list(members)}


def _condition(title: str, expression: str) -> Document:
    return {"condition": {"title": title, "expression": expression}}
