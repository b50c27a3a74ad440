"""One real Airflow (scheduler, triggerer, api-server) for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.airflow_home import LocalAirflow, running_airflow

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    home = tmp_path_factory.mktemp("airflow")
    settings = {
        "PYTHONPATH": os.pathsep.join((str(_slow_cloud(home / "site")), str(FOLDER.parents[1]))),
        # A triggerer that says nothing for this long has lost its triggers.
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    }
    with running_airflow(home, FOLDER / "dags", settings=settings) as running:
        running.wait_for_dag("values")
        yield running


def _slow_cloud(site: Path) -> Path:
    """Let the flavor of ``slow_cloud.py`` be found as one of an installed package is."""
    package = site / "slow_cloud-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-cloud\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[airflow_stepops.step_operators]\n"
        "slow = tests.scheduler.slow_cloud:SlowStepOperator\n"
        "halved = tests.scheduler.slow_cloud:HalvedStepOperator\n"
    )
    return site
