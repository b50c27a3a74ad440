"""Step operator ``vertex``: a custom job of Vertex AI."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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

#: Label by which the job of an attempt is found: Vertex gives jobs numbers of its own.
LABEL = "stepops_job"

_NETWORK_NAME = "[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_PROJECT = "[a-z0-9][-a-z0-9.:]*"

MachineType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$")]
AcceleratorType = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class _Part(BaseModel):
    """A setting with settings of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class WorkerPool(_Part):
    """Further machines of a job that are of another kind than the first one."""

    machine_type: MachineType
    accelerator_type: AcceleratorType | None = None
    accelerator_count: int | None = Field(None, ge=1)
    replica_count: int = Field(1, ge=1)


class NfsMount(_Part):
    """A folder of an NFS server, at ``/mnt/nfs/<mount_point>``."""

    server: str = Field(min_length=1)
    path: str = Field(pattern="^/")
    mount_point: str = Field(min_length=1)


class VertexStepOperator(StepOperatorComponent):
    """Runs a step as a custom job of Vertex AI, from an image in Artifact Registry, with artifacts in Cloud Storage."""

    flavor: ClassVar[str] = "vertex"
    cloud: ClassVar[str] = "gcp"
    place: ClassVar[frozenset[str]] = frozenset({"region", "project"})

    region: str = Field(pattern=r"^[a-z]+-[a-z]+\d+$", description="such as europe-west4")
    connection: str | None = Field(
        None, description="id of an Airflow connection of type google_cloud_platform; default: google_cloud_default"
    )
    project: str | None = Field(
        None, pattern=f"^{_PROJECT}$", description="id of the Google Cloud project; default: the connection's"
    )
    machine_type: MachineType | None = Field(
        None, description="such as g2-standard-8; default: the cheapest usual one that has the step's resources"
    )
    accelerator_type: AcceleratorType | None = Field(
        None, description="such as NVIDIA_L4; default: the one that fits the step's resources and the machine type"
    )
    accelerator_count: int | None = Field(None, ge=1, description="accelerators of each machine; default: 1")
    replica_count: int = Field(1, ge=1, description="number of machines, all alike")
    worker_pools: list[WorkerPool] = Field(
        default_factory=list,
        max_length=3,
        description="further machines of other kinds: machine_type, accelerator_type, accelerator_count, replica_count",
    )
    boot_disk_type: Literal["pd-ssd", "pd-standard", "hyperdisk-balanced"] | None = Field(
        None, description="default: what Vertex takes for the machine type"
    )
    boot_disk_size: int = Field(100, ge=100, le=64000, description="disk of each machine, in GB")
    service_account: str | None = Field(
        None,
        pattern=r"^[^@\s]+@[^@\s]+\.gserviceaccount\.com$",
        description="email of the service account that the job is; default: Vertex AI's own for custom code",
    )
    network: str | None = Field(
        None,
        pattern=rf"^projects/\d+/global/networks/{_NETWORK_NAME}$",
        description="VPC network to be peered with: projects/<number>/global/networks/<name>",
    )
    reserved_ip_ranges: list[str] = Field(default_factory=list, description="names of IP ranges of the network to use")
    psc_interface: str | None = Field(
        None,
        pattern=rf"^(projects/{_PROJECT}/regions/[a-z0-9-]+/networkAttachments/)?{_NETWORK_NAME}$",
        description="network attachment to reach a VPC by, instead of network: its name or full name",
    )
    encryption_key: str | None = Field(
        None,
        pattern=rf"^projects/{_PROJECT}/locations/[a-z0-9-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+$",
        description="Cloud KMS key for all that the job makes",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="labels of the job")
    experiment_name: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9-]{0,127}$",
        description="Vertex AI experiment, which must exist, in which the job is a run; needs service_account",
    )
    tensorboard: str | None = Field(
        None,
        pattern=rf"^projects/{_PROJECT}/locations/[a-z0-9-]+/tensorboards/\w+$",
        description="Vertex AI TensorBoard that shows the job's logs; needs service_account",
    )
    timeout: int = Field(
        604800, ge=1, description="seconds that a job may run whose step says no timeout; then it is stopped"
    )
    strategy: Literal["standard", "spot", "flex_start"] = Field(
        "standard", description="spot: cheaper machines that may be taken away; flex_start: waits for scarce ones"
    )
    max_wait: int | None = Field(
        None, ge=0, description="seconds to wait for machines with flex_start, 0 for ever; default: a day"
    )
    restart_on_worker_restart: bool = Field(
        False, description="start all machines of the job again when one of them is restarted"
    )
    disable_retries: bool = Field(False, description="let Vertex not start the job again after an error of its own")
    persistent_resource: str | None = Field(
        None, pattern=f"^{_NETWORK_NAME}$", description="id of a persistent resource whose machines run the job"
    )
    web_access: bool = Field(False, description="let people open a shell in the running container")
    base_image: str = Field(f"mirror.gcr.io/library/python:{_PYTHON}-slim", description="base of images that name none")
    environment: dict[str, str] = Field(default_factory=dict, description="variables of the container; no secrets")
    nfs_mounts: list[NfsMount] = Field(
        default_factory=list, description="folders of NFS servers at /mnt/nfs: server, path, mount_point"
    )
    extra: dict[str, Any] = Field(
        default_factory=dict, description="merged into the CustomJob of the request as it is, pool by pool"
    )

    @field_validator("labels")
    @classmethod
    def _leaves_our_label(cls, value: dict[str, str]) -> dict[str, str]:
        if LABEL in value:
            raise ValueError(f"the step operator itself finds its jobs by {LABEL!r}: use another label")
        return value

    @field_validator("extra")
    @classmethod
    def _leaves_the_job_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = [name for name in ("displayName", "labels") if name in value]
        if ours:
            raise ValueError(f"{', '.join(ours)}: the step operator itself says which job this is")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> VertexStepOperator:
        for wrong, said in (
            (self.accelerator_count and not self.accelerator_type, "accelerator_count needs accelerator_type"),
            (
                self.worker_pools and self.replica_count > 1,
                "replica_count and worker_pools: with worker_pools the first machine stands alone; give one of them",
            ),
            (self.network and self.psc_interface, "network and psc_interface: a job has one way into a VPC"),
            (self.reserved_ip_ranges and not self.network, "reserved_ip_ranges needs network"),
            (self.max_wait is not None and self.strategy != "flex_start", "max_wait needs strategy: flex_start"),
            (
                self.restart_on_worker_restart and self.disable_retries,
                "disable_retries turns restart_on_worker_restart off: give one of them",
            ),
            (
                self.experiment_name and self.tensorboard,
                "experiment_name and tensorboard: an experiment has a TensorBoard of its own; give one of them",
            ),
            (
                (self.experiment_name or self.tensorboard) and not self.service_account,
                "experiment_name and tensorboard need service_account: the job writes to them itself",
            ),
        ):
            if wrong:
                raise ValueError(said)
        return self

    def target(self) -> ImageTarget:
        """Return the base and the platform."""
        return ImageTarget(base=self.base_image, platform=_PLATFORM)

    def connect(self) -> JobService:
        """Return the jobs of the project and region."""
        from airflow_stepops.clouds.gcp.service import VertexJobService

        return VertexJobService(self)

    def permissions(
        self, artifact_store: ArtifactStoreComponent, container_registry: ContainerRegistryComponent
    ) -> Mapping[str, Any]:
        """Return custom roles, and ``bindings``: who has which role on what, and on which condition."""
        from airflow_stepops.clouds.gcp.permissions import roles_and_bindings

        return roles_and_bindings(self, artifact_store, container_registry)

    def account_key(self) -> str:
        """Return a key of connection, project and region."""
        return f"vertex:{self.connection or ''}:{self.project or ''}:{self.region}"
