"""The places to run jobs in, one for each step operator that needs no cloud."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.clouds.docker.step_operator import DockerStepOperator
from airflow_stepops.clouds.local.step_operator import LocalStepOperator
from airflow_stepops.images.registry.client import RegistryClient
from airflow_stepops.images.registry.layout import LayoutRepository
from tests.clouds.ground import Ground, build_image
from tests.engines import BASE_PYTHON, Podman


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _stepops_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPOPS_HOME", str(home))


@pytest.fixture(scope="session")
def at_home(home: Path) -> Iterator[pytest.MonkeyPatch]:
    """The home while the fixtures of a session are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPOPS_HOME", str(home))
        yield patch


def pid_of(home: Path, job_id: str) -> int:
    """Return the process of a local job's step."""
    return int(json.loads((home / "jobs" / job_id / "state.json").read_text())["pid"])


@pytest.fixture(scope="session")
def local(home: Path, at_home: pytest.MonkeyPatch) -> Ground:
    repository = LayoutRepository(home / "images")
    return Ground(
        connect=LocalStepOperator().connect,
        kill=lambda job_id: os.kill(pid_of(home, job_id), signal.SIGKILL),
        repository=repository,
        image=build_image(repository, None),
        store=ArtifactStore((home / "artifacts").as_uri()),
    )


@pytest.fixture(scope="session")
def docker(home: Path, at_home: pytest.MonkeyPatch, registry: str, base_image: str, podman: Podman) -> Ground:
    repository = RegistryClient(f"{registry}/clouds/jobs")
    component = DockerStepOperator(docker_host=podman.socket, network="host")
    return Ground(
        connect=component.connect,
        kill=lambda job_id: podman.run("kill", "--signal", "KILL", job_id) and None,
        repository=repository,
        image=build_image(repository, base_image, python=BASE_PYTHON),
        store=ArtifactStore((home / "artifacts").as_uri()),
    )


@pytest.fixture(params=["local", "docker"])
def ground(request: pytest.FixtureRequest) -> Ground:
    """Every place to run jobs in."""
    found: Ground = request.getfixturevalue(request.param)
    return found
