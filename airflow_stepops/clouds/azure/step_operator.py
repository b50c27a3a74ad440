"""Step operator ``azureml``: a command job of Azure ML."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from airflow_stepops.stacks.components import (
    ArtifactStoreComponent,
    ContainerRegistryComponent,
    ImageTarget,
    StepOperatorComponent,
)

if TYPE_CHECKING:
    from airflow_stepops.jobs.protocol import JobService

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_PLATFORM = "linux/amd64"

#: Tag by which our jobs are listed; its value is the name of the job.
TAG = "stepops_job"

_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"

#: What makes a job the one of an attempt.
_OURS = frozenset({"jobType", "command", "environmentId"})


class AzureMLStepOperator(StepOperatorComponent):
    """Runs a step as a command job of Azure ML, from an image in a registry, with artifacts in Blob Storage."""

    flavor: ClassVar[str] = "azureml"
    cloud: ClassVar[str] = "azure"
    place: ClassVar[frozenset[str]] = frozenset({"subscription_id", "resource_group", "workspace_name"})

    resource_group: str = Field(
        pattern=r"^[-\w().]*[-\w()]$", max_length=90, description="resource group that the workspace is in"
    )
    workspace_name: str = Field(
        pattern="^[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}$", description="name of the Azure ML workspace"
    )
    subscription_id: str | None = Field(
        None, pattern=f"^{_UUID}$", description="id of the subscription; default: the connection's"
    )
    connection: str | None = Field(
        None, description="id of an Airflow connection of type azure; default: azure_default"
    )
    compute_name: str | None = Field(
        None,
        pattern=r"^[a-zA-Z][a-zA-Z0-9-]{0,30}[a-zA-Z0-9]$",
        description="cluster or instance of the workspace to run on; default: serverless compute",
    )
    instance_type: str | None = Field(
        None,
        pattern="^[a-zA-Z][a-zA-Z0-9_-]+$",
        description="machine of serverless compute, such as Standard_NC4as_T4_v3; default: the cheapest usual one that "
        "has the step's resources",
    )
    instance_count: int = Field(1, ge=1, description="number of machines, all alike")
    tier: Literal["dedicated", "spot"] = Field(
        "dedicated", description="of serverless compute; spot: cheaper machines that may be taken away"
    )
    priority: Literal["low", "medium", "high"] | None = Field(
        None, description="which of several jobs that wait comes first; default: medium"
    )
    shm_size: str | None = Field(
        None, pattern=r"^\d+[bBkKmMgG]$", description="shared memory of the container, such as 8g"
    )
    docker_args: str | None = Field(None, min_length=1, description="further arguments of docker run")
    identity: str = Field(
        "managed",
        pattern=f"^(managed|user|token|{_UUID})$",
        description="what the job is: managed: the identity of its compute; the client id of one of several; user: who "
        "submits it; token: nobody but the job itself",
    )
    distribution: Literal["PyTorch", "TensorFlow", "MPI"] | None = Field(
        None,
        description="how several machines are told of each other, one process on each; default: PyTorch where there "
        "are several",
    )
    experiment_name: str | None = Field(
        None,
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]*$",
        max_length=255,
        description="experiment that the job is listed in; default: the id of the DAG",
    )
    environment: dict[str, str] = Field(default_factory=dict, description="variables of the container; no secrets")
    tags: dict[str, str] = Field(default_factory=dict, description="tags of the job")
    properties: dict[str, str] = Field(
        default_factory=dict, description="properties of the job, which cannot be changed later"
    )
    timeout: int = Field(
        604800, ge=1, description="seconds that a job may run whose step says no timeout; then it is stopped"
    )
    base_image: str = Field(f"docker.io/library/python:{_PYTHON}-slim", description="base of images that name none")
    extra: dict[str, Any] = Field(
        default_factory=dict, description="merged into the properties of the job in the request as it is"
    )

    @field_validator("tags")
    @classmethod
    def _leaves_our_tag(cls, value: dict[str, str]) -> dict[str, str]:
        if TAG in value:
            raise ValueError(f"the step operator itself lists its jobs by {TAG!r}: use another tag")
        return value

    @field_validator("extra")
    @classmethod
    def _leaves_the_job_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(_OURS & set(value))
        if ours:
            raise ValueError(f"{', '.join(ours)}: the step operator itself says what the job runs")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> AzureMLStepOperator:
        for wrong, said in (
            (
                self.compute_name and self.instance_type,
                "compute_name and instance_type: a cluster has machines of its own; give one of them",
            ),
            (
                self.compute_name and self.tier == "spot",
                "compute_name and tier: a cluster itself says whether its machines may be taken away; leave tier out",
            ),
            (
                self.distribution and self.instance_count == 1,
                "distribution tells several machines of each other: it needs instance_count",
            ),
        ):
            if wrong:
                raise ValueError(said)
        return self

    def target(self) -> ImageTarget:
        """Return the base and the platform."""
        return ImageTarget(base=self.base_image, platform=_PLATFORM)

    def connect(self) -> JobService:
        """Return the jobs of the workspace."""
        from airflow_stepops.clouds.azure.service import AzureMLJobService

        return AzureMLJobService(self)

    def permissions(
        self, artifact_store: ArtifactStoreComponent, container_registry: ContainerRegistryComponent
    ) -> Mapping[str, Any]:
        """Return custom roles, and ``assignments``: who has which role on what, and on which condition."""
        from airflow_stepops.clouds.azure.permissions import role_and_assignments

        return role_and_assignments(self, artifact_store, container_registry)

    def account_key(self) -> str:
        """Return a key of connection and workspace."""
        place = f"{self.subscription_id or ''}:{self.resource_group}:{self.workspace_name}"
        return f"azureml:{self.connection or ''}:{place}"
