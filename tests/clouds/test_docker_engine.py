"""What a container engine is asked for, and what its refusals mean."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import bcrypt
import pytest

from airflow_stepops.clouds.docker.container import create_arguments
from airflow_stepops.clouds.docker.service import DockerJobService
from airflow_stepops.clouds.docker.step_operator import DockerStepOperator
from airflow_stepops.errors import EndKind, JobRefusedError, TransientServiceError
from airflow_stepops.images.registry.client import RegistryClient
from airflow_stepops.jobs.protocol import JobState
from tests.clouds.ground import Ground, ended, running
from tests.engines import Podman, running_registry
from tests.images.conftest import push_config


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryClient]:
    """A registry that asks for a password, opened with it."""
    folder = tmp_path_factory.mktemp("closed-registry")
    hashed = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"me:{hashed}\n")
    with running_registry(folder, {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}) as host:
        yield RegistryClient(f"{host}/team/steps", credentials=lambda: ("me", "s3cret"))


@pytest.fixture(scope="module")
def other_podman(closed_registry: RegistryClient) -> Iterator[Podman]:
    """A Podman that knows the closed registry."""
    engine = Podman.new(insecure=(closed_registry.registry,))
    try:
        with engine.service():
            yield engine
    finally:
        engine.remove()


def test_the_engine_pulls_with_the_login_of_the_registry(
    docker: Ground, closed_registry: RegistryClient, other_podman: Podman
) -> None:
    image = closed_registry.reference(push_config(closed_registry))
    service = DockerJobService(other_podman.socket, network="host")
    anonymous = RegistryClient(closed_registry.name)
    with pytest.raises(JobRefusedError, match="give the stack's container registry a connection") as caught:
        service.submit(docker.request("add", 1, 1, image=image, repository=anonymous))
    assert caught.value.kind is EndKind.PERMISSION
    # With the login it is pulled, and then it has no Python.
    request = docker.request("add", 1, 1, image=image, repository=closed_registry)
    with pytest.raises(JobRefusedError, match="the image cannot run python") as caught:
        service.submit(request)
    assert caught.value.kind is EndKind.IMAGE
    assert service.find(request.name) is None


def test_a_registry_that_is_away_passes_by_itself(docker: Ground) -> None:
    request = docker.request("add", 1, 1, image=f"127.0.0.1:9/steps@sha256:{'0' * 64}")
    with pytest.raises(TransientServiceError, match="could not pull"):
        docker.connect().submit(request)


def test_an_image_in_a_folder_is_refused_with_what_to_do(docker: Ground) -> None:
    request = docker.request("add", 1, 1, image=f"oci-layout:/images@sha256:{'0' * 64}")
    with pytest.raises(JobRefusedError, match="container_registry of flavor 'generic'") as caught:
        docker.connect().submit(request)
    assert caught.value.kind is EndKind.IMAGE


def test_launching_without_an_engine_says_what_to_start(docker: Ground) -> None:
    service = DockerJobService("unix:///nowhere.sock")
    with pytest.raises(JobRefusedError, match="Start Docker, or Podman with 'podman system service'") as caught:
        service.submit(docker.request("add", 1, 1))
    assert caught.value.kind is EndKind.INFRASTRUCTURE  # which is tried again


def test_an_engine_that_goes_away_while_a_job_is_watched_passes_by_itself(docker: Ground) -> None:
    service = DockerJobService("unix:///nowhere.sock")
    for call in (lambda: service.describe("job"), lambda: service.changed(0), lambda: service.logs("job")):
        with pytest.raises(TransientServiceError, match="no container engine answers"):
            call()


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"network": "no-such-net"}, "no-such-net"), ({"extra": {"shm_sise": "1g"}}, "shm_sise")],
)
def test_what_the_engine_does_not_take_is_refused(
    docker: Ground, podman: Podman, settings: dict[str, Any], said: str
) -> None:
    service = DockerStepOperator(docker_host=podman.socket, **settings).connect()
    with pytest.raises(JobRefusedError, match=said) as caught:
        service.submit(docker.request("add", 1, 1))
    assert caught.value.kind is EndKind.INVALID_REQUEST


def test_a_step_that_needs_more_memory_than_it_may_have_is_killed(docker: Ground) -> None:
    service = docker.connect()
    request = docker.request("take", 400, resources={"memory": "200MiB"})
    service.submit(request)
    status = ended(service, request.name)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.INFRASTRUCTURE, -9)
    assert "out of memory" in status.reason


def test_a_job_that_ended_long_ago_is_tidied_away(
    docker: Ground, podman: Podman, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = DockerStepOperator(docker_host=podman.socket, network="host").connect()
    waiting, short = docker.request("wait"), docker.request("leave", 0)
    service.submit(waiting)
    running(service, waiting.name)
    service.submit(short)
    ended(service, short.name)
    service.submit(docker.request("leave", 0))
    assert service.describe(short.name).state.ended, "it ended a moment ago"
    monkeypatch.setattr("airflow_stepops.clouds.docker.service._KEPT_SECONDS", -2)
    service.submit(docker.request("leave", 0))
    assert service.find(short.name) is None
    assert service.describe(waiting.name).state is JobState.RUNNING
    service.cancel(waiting.name)
    ended(service, waiting.name)


def test_no_secret_is_in_the_container_s_description(
    docker: Ground, podman: Podman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_TOKEN", "hunter2")
    service, request = docker.connect(), docker.request("secret", secrets={"TOKEN": "env:OUR_TOKEN"})
    service.submit(request)
    ended(service, request.name)
    described = podman.run("inspect", request.name)
    assert json.loads(described)[0]["Name"] == request.name
    assert "hunter2" not in described


def test_extra_arguments_are_added_to_what_the_step_needs(docker: Ground) -> None:
    extra = {"environment": {"A": "b", "STEPOPS_SPEC": "theirs"}, "labels": {"team": "ml"}, "shm_size": "2g"}
    request = docker.request("add", 1, 1, environment={"AWS_ENDPOINT": "http://store"})
    arguments = create_arguments(request, "host", extra)
    assert arguments["environment"] == {"A": "b", "AWS_ENDPOINT": "http://store", "STEPOPS_SPEC": request.spec_uri}
    assert arguments["labels"]["team"] == "ml"
    assert arguments["labels"]["airflow-stepops.job"] == request.name
    assert arguments["shm_size"] == "2g"
    assert arguments["network_mode"] == "host"


def test_resources_become_limits_of_the_container(docker: Ground) -> None:
    request = docker.request("add", 1, 1, resources={"cpus": 1.5, "memory": "2GiB", "gpus": 2})
    arguments = create_arguments(request, None, {})
    assert arguments["nano_cpus"] == 1_500_000_000
    assert arguments["mem_limit"] == 2 * 2**30
    (device,) = arguments["device_requests"]
    assert (device["Count"], device["Capabilities"]) == (2, [["gpu"]])
    assert "network_mode" not in arguments


def test_a_store_in_a_folder_is_mounted_at_the_same_path_and_no_other(docker: Ground) -> None:
    request = docker.request("add", 1, 1)
    (mount,) = create_arguments(dataclasses.replace(request, artifact_root="file:///a%20b/c"), None, {})["mounts"]
    assert (mount["Source"], mount["Target"]) == ("/a b/c", "/a b/c")
    assert create_arguments(dataclasses.replace(request, artifact_root="s3://bucket/x"), None, {})["mounts"] == []
