"""Loads what all tests share. Airflow's environment is set here, before anything imports Airflow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.engines import Podman, push_base, running_registry

pytest_plugins = ["tests.airflow_env", "tests.past_run"]

# How long an example takes says nothing of the product, and much of the machine.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of a CNCF registry over plain HTTP without a login."""
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def base_image(registry: str) -> str:
    """Reference by digest of a base image in :func:`registry`, a Debian with Python ``tests.engines.BASE_PYTHON``."""
    return push_base(registry)


@pytest.fixture(scope="session")
def podman(registry: str) -> Iterator[Podman]:
    """A Podman of its own that knows :func:`registry`, with its Docker API served at ``podman.socket``."""
    engine = Podman.new(insecure=(registry,))
    try:
        with engine.service():
            yield engine
    finally:
        engine.remove()
