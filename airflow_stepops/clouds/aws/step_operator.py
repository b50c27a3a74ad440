"""Step operator ``sagemaker``: a training job, or a processing job."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

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
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+|[\w+=,.@-]{1,64}")
_S3 = re.compile(r"s3://[^/]+(/.*)?")

#: Settings that the API of processing jobs does not have.
_TRAINING_ONLY = ("spot", "max_wait", "keep_alive", "metrics", "retry_attempts", "output_path", "output_kms_key")

#: What makes a job the one of an attempt.
_OURS = frozenset({"TrainingJobName", "ProcessingJobName", "RoleArn"})

InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$")]


class SageMakerStepOperator(StepOperatorComponent):
    """Runs a step as a SageMaker training or processing job, from an image in ECR, with artifacts in S3."""

    flavor: ClassVar[str] = "sagemaker"
    cloud: ClassVar[str] = "aws"
    place: ClassVar[frozenset[str]] = frozenset({"region", "job_type"})

    role: str = Field(description="the job's execution role: its ARN, or its name")
    connection: str | None = Field(None, description="id of an Airflow connection of type aws; default: aws_default")
    region: str | None = Field(None, description="AWS region; default: the connection's")
    job_type: Literal["training", "processing"] = Field("training", description="which kind of job")
    instance_type: InstanceType | None = Field(
        None, description="such as ml.g5.xlarge; default: the cheapest usual one that has the step's resources"
    )
    instance_preferences: list[InstanceType] = Field(
        default_factory=list, max_length=5, description="up to 5 types, of which SageMaker takes the first that it has"
    )
    instance_count: int = Field(1, ge=1, le=100, description="number of machines")
    volume_size: int = Field(30, ge=1, le=16384, description="disk of each machine, in GB")
    max_runtime: int = Field(
        86400, ge=1, le=2419200, description="seconds that a job may run whose step says no timeout; then it is stopped"
    )
    spot: bool = Field(False, description="managed spot training: cheaper machines that may be taken away")
    max_wait: int | None = Field(
        None,
        ge=1,
        description="seconds for running and waiting with spot; default: run time and pending_timeout, or an hour",
    )
    keep_alive: int = Field(0, ge=0, le=21600, description="seconds that the machines stay warm for the next job")
    retry_attempts: int | None = Field(
        None, ge=1, le=30, description="how often SageMaker itself tries again after an error of its own"
    )
    subnets: list[str] = Field(default_factory=list, max_length=16, description="subnets of a VPC to run in")
    security_group_ids: list[str] = Field(default_factory=list, max_length=5, description="security groups in the VPC")
    volume_kms_key: str | None = Field(None, description="KMS key for the disk")
    output_kms_key: str | None = Field(None, description="KMS key for what SageMaker itself writes to output_path")
    encrypt_traffic: bool = Field(False, description="encrypt the traffic between the machines of one job")
    output_path: str | None = Field(
        None, description="S3 URI for SageMaker's own output; default: sagemaker in the artifact store"
    )
    input_data: dict[str, str] = Field(
        default_factory=dict, description="channel → S3 URI that SageMaker puts into /opt/ml/input/data/<channel>"
    )
    input_mode: Literal["File", "FastFile", "Pipe"] = Field("File", description="how the channels are read")
    experiment_name: str | None = Field(None, description="SageMaker experiment that the job belongs to")
    trial_name: str | None = Field(None, description="trial of the experiment")
    metrics: dict[str, str] = Field(
        default_factory=dict, description="metric → regular expression that finds it in the log"
    )
    environment: dict[str, str] = Field(default_factory=dict, description="variables of the container; no secrets")
    tags: dict[str, str] = Field(default_factory=dict, description="tags of the job")
    base_image: str = Field(
        f"public.ecr.aws/docker/library/python:{_PYTHON}-slim", description="base of images that name none"
    )
    platform: Literal["linux/amd64", "linux/arm64"] = Field("linux/amd64", description="of the instance types")
    extra: dict[str, Any] = Field(
        default_factory=dict, description="merged into the request of CreateTrainingJob or CreateProcessingJob as it is"
    )

    @field_validator("role")
    @classmethod
    def _is_a_role(cls, value: str) -> str:
        if not _ROLE.fullmatch(value):
            raise ValueError("give the ARN of a role, such as 'arn:aws:iam::123456789012:role/training', or its name")
        return value

    @field_validator("output_path", "input_data")
    @classmethod
    def _is_in_s3(cls, value: Any) -> Any:
        for uri in value.values() if isinstance(value, dict) else [value]:
            if uri is not None and not _S3.fullmatch(uri):
                raise ValueError("give URIs such as 's3://bucket/prefix'")
        return value

    @field_validator("extra")
    @classmethod
    def _leaves_the_job_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(_OURS & set(value))
        if ours:
            raise ValueError(f"{', '.join(ours)}: the step operator itself says which job this is")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> SageMakerStepOperator:
        if bool(self.subnets) != bool(self.security_group_ids):
            raise ValueError("subnets and security_group_ids go together: a VPC needs both")
        if self.instance_type is not None and self.instance_preferences:
            raise ValueError("instance_type and instance_preferences say the same: give one of them")
        if self.job_type == "processing":
            given = [name for name in _TRAINING_ONLY if name in self.model_fields_set]
            if given:
                raise ValueError(f"{', '.join(given)}: processing jobs have none of it; drop it or use training jobs")
        return self

    def target(self) -> ImageTarget:
        """Return the base and the platform."""
        return ImageTarget(base=self.base_image, platform=self.platform)

    def connect(self) -> JobService:
        """Return the jobs of the account and region."""
        from airflow_stepops.clouds.aws.service import SageMakerJobService

        return SageMakerJobService(self)

    def permissions(
        self, artifact_store: ArtifactStoreComponent, container_registry: ContainerRegistryComponent
    ) -> Mapping[str, Any]:
        """Return IAM policies: ``worker`` for the connection's identity, ``job`` and ``job_trust`` for the role."""
        from airflow_stepops.clouds.aws.permissions import policies

        return policies(self, artifact_store, container_registry)

    def account_key(self) -> str:
        """Return a key of connection, region and kind of job."""
        return f"sagemaker:{self.job_type}:{self.connection or ''}:{self.region or ''}"
