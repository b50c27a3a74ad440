"""One real Airflow (scheduler, triggerer, api-server) for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.airflow_home import LocalAirflow, running_airflow


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    home = tmp_path_factory.mktemp("airflow")
    with running_airflow(home, Path(__file__).parent / "dags") as running:
        running.wait_for_dag("values")
        yield running
