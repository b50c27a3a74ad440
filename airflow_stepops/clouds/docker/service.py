"""Jobs as containers of one engine. A job's id is its container's name."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from docker import errors
from docker.types import DeviceRequest, Mount
from requests.exceptions import RequestException

from airflow_stepops.clouds.docker import logs, states
from airflow_stepops.clouds.docker.secrets import secrets_archive
from airflow_stepops.errors import BuildEngineError, EndKind, JobNotFoundError, JobRefusedError, TransientServiceError
from airflow_stepops.images.engine import connect
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobStatus, LogChunk
from airflow_stepops.options import memory_bytes
from airflow_stepops.runtime.spec import COMMAND, SPEC_VARIABLE

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

#: Marks containers of ours; its value is the job's name.
LABEL = "airflow-stepops.job"

_GRACE_SECONDS = 30
#: Ended containers are kept, as a cloud keeps its jobs, up to this number.
_KEPT = 50


class DockerJobService(JobService):
    """The containers of one engine.

    :param address: where the engine listens, or ``None`` for the usual places.
    :param network: the containers' network, or ``None`` for the engine's default.
    :param extra: further arguments of the create call.
    """

    poll_seconds: ClassVar[float] = 1.0
    seconds_between_calls: ClassVar[float] = 0.0

    def __init__(self, address: str | None, *, network: str | None = None, extra: Mapping[str, Any] = {}) -> None:
        self._address = address
        self._network = network
        self._extra = dict(extra)
        self._connected: DockerClient | None = None
        self._readers: dict[str, logs.LogReader] = {}

    def submit(self, request: JobRequest) -> JobStatus:
        """Create and start the container, or return the one of this name."""
        with self._errors():
            container = self._container(request.name) or self._create(request)
            if container.status == "created":
                if request.secrets:
                    container.put_archive("/run", secrets_archive(request.secrets))
                container.start()
                container.reload()
        return states.status(request.name, container.attrs)

    def find(self, name: str) -> JobStatus | None:
        """Return the job with this name."""
        with self._errors():
            container = self._container(name)
        return states.status(name, container.attrs) if container is not None else None

    def describe(self, job_id: str) -> JobStatus:
        """Return the job."""
        status = self.find(job_id)
        if status is None:
            raise JobNotFoundError(f"the engine has no container {job_id!r}")
        return status

    def changed(self, since: float) -> Mapping[str, JobStatus]:  # noqa: ARG002 - one call lists all that are kept
        """Return all jobs of ours that the engine keeps."""
        with self._errors():
            listed = self._client.api.containers(all=True, filters={"label": LABEL})
        return {entry["Labels"][LABEL]: states.listed(entry["Labels"][LABEL], entry) for entry in listed}

    def cancel(self, job_id: str) -> None:
        """Send SIGTERM, and SIGKILL after 30 seconds, from a thread."""
        with self._errors():
            container = self._container(job_id)
            if container is None or container.status in states.ENDED:
                return
            if container.status == "created":
                container.remove(force=True)
                return
        threading.Thread(target=self._stop, args=(container,), daemon=True, name=f"stop-{job_id}").start()

    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        """Return lines after a cursor (a time stamp, and how many lines of that time were seen)."""
        reader = self._readers.get(job_id)
        if reader is None or reader.cursor != cursor:
            with self._errors():
                container = self._container(job_id)
            if container is None:
                return LogChunk((), cursor)
            reader = self._readers[job_id] = logs.LogReader(container, cursor)
        with self._errors():
            chunk = reader.read(limit)
        if not chunk.more:
            del self._readers[job_id]
        return chunk

    def console_url(self, job_id: str) -> str:  # noqa: ARG002 - engines have no console
        """Return nothing."""
        return ""

    @property
    def _client(self) -> DockerClient:
        if self._connected is None:
            try:
                self._connected = connect(self._address)
            except BuildEngineError as error:
                raise TransientServiceError(str(error)) from error
        return self._connected

    def _container(self, name: str) -> Container | None:
        try:
            container = self._client.containers.get(name)
        except errors.NotFound:
            return None
        if container.labels.get(LABEL) != name:
            raise JobRefusedError(f"there is a container {name!r} that no step operator made: remove or rename it.")
        return container

    def _create(self, request: JobRequest) -> Container:
        self._prune()
        self._pull(request)
        try:
            return self._client.containers.create(**{**self._arguments(request), **self._extra})
        except errors.APIError as error:
            if error.status_code == 409:  # somebody created it at the same time
                container = self._container(request.name)
                if container is not None:
                    return container
            if error.status_code in (400, 404):
                raise JobRefusedError(f"the engine refuses the container: {error.explanation}") from error
            raise

    def _arguments(self, request: JobRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "image": request.image,
            "name": request.name,
            # The base's own entrypoint is for its own programs.
            "entrypoint": list(COMMAND),
            "command": [],
            "environment": {**request.environment, SPEC_VARIABLE: request.spec_uri},
            "labels": {
                **{f"airflow-stepops.{key}": value for key, value in request.labels.items()},
                LABEL: request.name,
            },
            "detach": True,
        }
        if self._network is not None:
            arguments["network"] = self._network
        folder = request.artifact_root.removeprefix("file://")
        if folder != request.artifact_root:
            arguments["mounts"] = [Mount(target=folder, source=folder, type="bind")]
        resources = request.resources
        if "cpus" in resources:
            arguments["nano_cpus"] = int(resources["cpus"] * 1e9)
        if "memory" in resources:
            arguments["mem_limit"] = memory_bytes(resources["memory"], "Resources.memory")
        if resources.get("gpus"):
            arguments["device_requests"] = [DeviceRequest(count=resources["gpus"], capabilities=[["gpu"]])]
        return arguments

    def _pull(self, request: JobRequest) -> None:
        try:
            self._client.images.get(request.image)
        except errors.ImageNotFound:
            pass
        else:
            return
        login = request.repository.login() if request.repository is not None else None
        credentials = {"username": login[0], "password": login[1]} if login else None
        try:
            self._client.images.pull(request.image, auth_config=credentials)
        except errors.APIError as error:
            raise _pull_error(request.image, str(error.explanation or error)) from error

    def _prune(self) -> None:
        listed = self._client.api.containers(all=True, filters={"label": LABEL})
        ended = [entry for entry in listed if str(entry["State"]).lower() in states.ENDED]
        for entry in sorted(ended, key=lambda entry: entry["Created"], reverse=True)[_KEPT:]:
            self._client.api.remove_container(entry["Id"], force=True)

    def _stop(self, container: Container) -> None:
        try:
            container.stop(timeout=_GRACE_SECONDS)
        except (errors.APIError, RequestException):
            # It has ended by itself, or the engine is away; whoever waits for the end looks again.
            return

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what may pass by itself into the error that says so."""
        try:
            yield
        except (errors.APIError, RequestException, OSError) as error:
            raise TransientServiceError(f"the container engine failed: {error}") from error


def _pull_error(image: str, explanation: str) -> Exception:
    said = explanation.lower()
    if any(word in said for word in ("unauthorized", "denied", "forbidden", "authentication required")):
        return JobRefusedError(f"the engine may not pull {image}: {explanation}", EndKind.PERMISSION)
    if any(
        word in said for word in ("manifest unknown", "not found", "no such image", "name unknown", "server gave http")
    ):
        return JobRefusedError(f"the engine cannot pull {image}: {explanation}", EndKind.IMAGE)
    return TransientServiceError(f"the engine could not pull {image}: {explanation}")
