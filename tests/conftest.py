"""Loads what all tests share. Airflow's environment is set here, before anything imports Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.engines import Podman, push_base, running_registry

pytest_plugins = ["tests.airflow_env", "tests.past_run", "tests.stranger"]

# How long an example takes says nothing of the product, and much of the machine.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

#: Files that take longest, in the order in which they begin: no process is left alone with one of them at the end, and
#: those with an Airflow of their own are apart.
_LONGEST = (
    "scheduler/test_cancellation.py",
    "docs/test_tutorial.py",
    "clouds/aws/test_live_suite.py",
    "clouds/gcp/test_live_suite.py",
    "faults/test_journeys.py",
    "scheduler/test_deferred_steps.py",
    "clouds/azure/test_live_suite.py",
    "scheduler/test_triggerers.py",
    "scheduler/test_identity.py",
    "clouds/aws/test_scheduled.py",
    "examples/test_examples.py",
    "cli/test_init.py",
    "clouds/gcp/test_scheduled.py",
    "packaging/test_third_party.py",
    "cli/test_console.py",
    "cli/test_stopping_runs.py",
    "clouds/azure/test_scheduled.py",
    "clouds/test_three_clouds.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; the Makefile has pytest-xdist keep the order."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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
