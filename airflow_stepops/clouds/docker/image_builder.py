"""Image builder ``docker``: bases from a Dockerfile or with Debian packages, made by Docker or Podman."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from airflow_stepops.stacks.components import ImageBuilderComponent


class DockerImageBuilder(ImageBuilderComponent):
    """Builds bases with a container engine; the layers on top are assembled as with ``oci``."""

    flavor: ClassVar[str] = "docker"
    builds_dockerfiles: ClassVar[bool] = True

    docker_host: str | None = Field(
        None,
        description="address of the engine, such as unix:///run/podman/podman.sock; default: DOCKER_HOST, then the "
        "sockets of Docker and Podman",
    )

    def engine_address(self) -> str | None:
        """Return where the container engine listens, ``None`` to look for it in the usual places."""
        return self.docker_host
