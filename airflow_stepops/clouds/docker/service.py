"""Jobs as containers of one engine. A job's id is its container's name."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from docker.errors import APIError, NotFound
from requests.exceptions import RequestException

from airflow_stepops.clouds.docker import states
from airflow_stepops.clouds.docker.container import LABEL, create_arguments
from airflow_stepops.clouds.docker.failures import create_error, explanation, passing, pull_error, start_error
from airflow_stepops.clouds.docker.logs import LogReader
from airflow_stepops.clouds.docker.secrets import secrets_archive
from airflow_stepops.clouds.secrets import launcher_secrets
from airflow_stepops.clouds.sweeps import read_entry
from airflow_stepops.errors import BuildEngineError, EndKind, JobNotFoundError, JobRefusedError, TransientServiceError
from airflow_stepops.images.engine import connect
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobStatus, LogChunk

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_GRACE_SECONDS = 30
#: Ended containers are kept, as a cloud keeps its jobs: long enough for whoever waits for them, or asks why they ended.
_KEPT_SECONDS = 24 * 60 * 60


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
        self._readers: dict[str, LogReader] = {}

    def submit(self, request: JobRequest) -> JobStatus:
        """Create and start the container, or return the one of this name."""
        secrets = launcher_secrets(request.secrets)
        try:
            self._connect()
        except BuildEngineError as error:
            raise JobRefusedError(str(error), EndKind.INFRASTRUCTURE) from error
        with passing():
            container = self._container(request.name) or self._create(request)
            if container.status == "created":
                self._start(container, secrets)
        return states.status(request.name, container.attrs)

    def find(self, name: str) -> JobStatus | None:
        """Return the job with this name."""
        with passing():
            container = self._container(name)
        return states.status(name, container.attrs) if container is not None else None

    def describe(self, job_id: str) -> JobStatus:
        """Return the job."""
        status = self.find(job_id)
        if status is None:
            raise JobNotFoundError(f"the engine has no container {job_id!r}")
        return status

    def changed(self, since: float) -> Mapping[str, JobStatus | None]:  # noqa: ARG002 - one call lists all that are kept
        """Return all jobs of ours that the engine keeps."""
        with passing():
            listed = {entry["Labels"][LABEL]: entry for entry in self._list()}
        return {name: read_entry(partial(states.listed, name), entry) for name, entry in listed.items()}

    def cancel(self, job_id: str) -> None:
        """Send SIGTERM, and SIGKILL after 30 seconds, from a thread. A container that has not begun is removed."""
        with passing():
            container = self._container(job_id)
            if container is None or container.status in states.ENDED:
                return
            with suppress(NotFound):
                if container.status == "created":
                    container.remove(force=True)
                    return
            try:
                container.kill("SIGTERM")
            except APIError:
                now = self._container(job_id)
                if now is None or now.status != "running":  # it has ended, or is being stopped
                    return
                raise
        threading.Thread(target=_stop, args=(container,), daemon=True, name=f"stop-{job_id}").start()

    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        """Return lines after a cursor."""
        with passing():
            begun = self._readers.pop(job_id, None)
            if begun is not None and begun.cursor == cursor:
                chunk = begun.read(limit)
                if chunk.lines:  # goes on where it is, instead of finding the place again
                    self._readers[job_id] = begun
                    return dataclasses.replace(chunk, more=True)
            container = self._container(job_id)
            if container is None:
                return LogChunk((), cursor)
            reader = LogReader(container, cursor)
            chunk = reader.read(limit)
        if chunk.more:
            self._readers[job_id] = reader
        return chunk

    def console_url(self, job_id: str) -> str:  # noqa: ARG002 - engines have no console
        """Return nothing."""
        return ""

    def _connect(self) -> DockerClient:
        if self._connected is None:
            self._connected = connect(self._address)
        return self._connected

    @property
    def _client(self) -> DockerClient:
        try:
            return self._connect()
        except BuildEngineError as error:
            raise TransientServiceError(str(error)) from error

    def _list(self) -> list[dict[str, Any]]:
        return list(self._client.api.containers(all=True, filters={"label": LABEL}))

    def _container(self, name: str) -> Container | None:
        try:
            container = self._client.containers.get(name)
        except NotFound:
            return None
        if container.labels.get(LABEL) != name:
            raise JobRefusedError(f"there is a container {name!r} that no step operator made: remove or rename it.")
        return container

    def _create(self, request: JobRequest) -> Container:
        self._prune()
        self._pull(request)
        try:
            return self._client.containers.create(**create_arguments(request, self._network, self._extra))
        except (APIError, TypeError) as error:
            # Somebody may have created it at the same time.
            container = self._container(request.name) if getattr(error, "status_code", None) in (409, 500) else None
            if container is not None:
                return container
            raise create_error(error) from error

    def _start(self, container: Container, secrets: Mapping[str, str]) -> None:
        try:
            if secrets:
                container.put_archive("/", secrets_archive(secrets))
            container.start()
            container.reload()
        except APIError as error:
            problem = start_error(error)
            if isinstance(problem, JobRefusedError):
                with suppress(APIError):
                    container.remove(force=True)
            raise problem from error

    def _pull(self, request: JobRequest) -> None:
        image = request.image
        if image.startswith("oci-layout:"):
            raise JobRefusedError(
                f"an engine cannot pull {image}, which is a folder: give the stack a container_registry of flavor "
                "'generic' or a cloud's, or use the step operator 'local'.",
                EndKind.IMAGE,
            )
        if "@" in image:  # what a tag names may have changed
            with suppress(NotFound):
                self._client.images.get(image)
                return
        login = request.repository.login() if request.repository is not None else None
        credentials = {"username": login[0], "password": login[1]} if login else None
        try:
            for entry in self._client.api.pull(image, auth_config=credentials, stream=True, decode=True):
                if "error" in entry:
                    raise pull_error(image, str(entry["error"]))
        except APIError as error:
            raise pull_error(image, explanation(error)) from error

    def _prune(self) -> None:
        horizon = time.time() - _KEPT_SECONDS
        for entry in self._list():
            if str(entry["State"]).lower() in states.ENDED and int(entry["Created"]) < horizon:
                container = self._container(entry["Labels"][LABEL])
                if container is not None and (states.status("", container.attrs).ended_at or 0) < horizon:
                    with suppress(NotFound):
                        container.remove(force=True)


def _stop(container: Container) -> None:
    # It has ended by itself, or the engine is away: whoever waits for the end looks again.
    with suppress(APIError, RequestException):
        container.stop(timeout=_GRACE_SECONDS)
