"""Step operator ``docker``: a container on Docker or Podman."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from airflow_stepops.stacks.components import ImageTarget, StepOperatorComponent

if TYPE_CHECKING:
    from airflow_stepops.jobs.protocol import JobService

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


#: What makes a container the job that it is, and its log readable.
_OURS = frozenset(
    {"image", "name", "entrypoint", "command", "detach", "tty", "auto_remove", "restart_policy", "log_config"}
)


class DockerStepOperator(StepOperatorComponent):
    """Runs a step in a container of an engine that worker and triggerer reach."""

    flavor: ClassVar[str] = "docker"

    base_image: str = Field(f"docker.io/library/python:{_PYTHON}-slim", description="base of images that name none")
    docker_host: str | None = Field(
        None,
        description="address of the engine, such as unix:///run/podman/podman.sock; default: DOCKER_HOST, then the "
        "sockets of Docker and Podman",
    )
    platform: Literal["linux/amd64", "linux/arm64"] | None = Field(
        None, description="of the images; default: this machine's"
    )
    network: str | None = Field(None, description="the container's network, such as host; default: the engine's")
    extra: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of the create call (docker SDK, containers.create), such as {shm_size: 2g}; mappings "
        "and lists are added to what the step needs, all else replaces it",
    )

    @field_validator("extra")
    @classmethod
    def _leaves_the_job_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(_OURS & set(value))
        if ours:
            raise ValueError(f"{', '.join(ours)}: the step operator itself says what runs, under which name and how")
        return value

    def target(self) -> ImageTarget:
        """Return the base, and the platform."""
        return ImageTarget(base=self.base_image, platform=self.platform)

    def connect(self) -> JobService:
        """Return the engine's containers."""
        from airflow_stepops.clouds.docker.service import DockerJobService

        return DockerJobService(self.docker_host, network=self.network, extra=self.extra)

    def account_key(self) -> str:
        """Return a key of the engine."""
        return f"docker:{self.docker_host or ''}"
