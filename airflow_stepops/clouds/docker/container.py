"""The arguments with which a job's container is created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from docker.types import DeviceRequest, Mount

from airflow_stepops.jobs.protocol import JobRequest
from airflow_stepops.options import memory_bytes
from airflow_stepops.runtime.spec import COMMAND, SPEC_VARIABLE

#: Marks containers of ours; its value is the job's name.
LABEL = "airflow-stepops.job"


def create_arguments(request: JobRequest, network: str | None, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the docker SDK's ``containers.create``.

    :param extra: a person's own; mappings and lists are added to ours, all else replaces it.
    """
    ours = {
        "image": request.image,
        "name": request.name,
        # The base's own entrypoint is for its own programs.
        "entrypoint": list(COMMAND),
        "command": [],
        "environment": {**request.environment, SPEC_VARIABLE: request.spec_uri},
        "labels": {**{f"airflow-stepops.{key}": value for key, value in request.labels.items()}, LABEL: request.name},
        "mounts": _mounts(request.artifact_root),
        **_resources(request.resources),
        **({"network_mode": network} if network is not None else {}),
    }
    return {**ours, **{name: _added(ours.get(name), value) for name, value in extra.items()}}


def _added(ours: Any, value: Any) -> Any:
    if isinstance(ours, dict) and isinstance(value, dict):
        return {**value, **ours}
    if isinstance(ours, list) and isinstance(value, list):
        return [*ours, *value]
    return value


def _mounts(artifact_root: str) -> list[Mount]:
    """Return the artifact store where it is a folder: the job reads and writes it at the same path."""
    root = urlsplit(artifact_root)
    if root.scheme != "file":
        return []
    folder = unquote(root.path)
    return [Mount(target=folder, source=folder, type="bind")]


def _resources(resources: Mapping[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if "cpus" in resources:
        arguments["nano_cpus"] = int(resources["cpus"] * 1e9)
    if "memory" in resources:
        arguments["mem_limit"] = memory_bytes(resources["memory"], "Resources.memory")
    if resources.get("gpus"):
        arguments["device_requests"] = [DeviceRequest(count=resources["gpus"], capabilities=[["gpu"]])]
    return arguments
