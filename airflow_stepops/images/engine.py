"""Reaching a container engine: Docker or Podman, through the Docker API."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_stepops.errors import BuildEngineError

if TYPE_CHECKING:
    from docker import DockerClient


def connect(address: str | None, timeout: int = 60) -> DockerClient:
    """Return a client of the first engine that answers.

    :param address: where it listens; ``None`` for ``DOCKER_HOST``, then the usual sockets of Docker and Podman.
    :param timeout: seconds for one answer.
    :raises BuildEngineError: when none answers, saying what to start.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError as error:
        raise BuildEngineError("this needs the docker package: pip install 'airflow-stepops[docker]'.") from error
    places = _places(address)
    for place in places:
        try:
            client = docker.DockerClient(base_url=place, timeout=timeout)
        except DockerException:
            continue
        try:
            client.ping()
        except (DockerException, OSError):
            client.close()
            continue
        return client
    raise BuildEngineError(
        f"no container engine answers at {', '.join(places)}. Start Docker, or Podman with 'podman system service', or "
        "set DOCKER_HOST."
    )


def _places(address: str | None) -> list[str]:
    configured = address or os.environ.get("DOCKER_HOST")
    if configured:
        return [configured]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    sockets = [
        "/var/run/docker.sock",
        "/run/podman/podman.sock",
        *([f"{runtime}/podman/podman.sock"] if runtime else []),
    ]
    return [f"unix://{path}" for path in sockets]
