"""A run that has ended, with steps of all kinds, for tests of what can be seen of it afterwards.

A pytest plugin, loaded by ``tests/conftest.py``. Airflow makes the run once, in this process, on the built-in local
stack.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_stepops.artifacts.store import ArtifactStore
from tests.airflow_env import DAGS, FinishedRun, InProcessAirflow

DAG_FILE = """\
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from airflow_stepops import log_metadata
from airflow_stepops.dag import Image, pipeline, step


@step
def numbers() -> list[int]:
    return [1, 2]


@step(step_operator=True)
def square(number: int) -> int:
    print("squaring", number)
    log_metadata({"number": number})
    return number * number


@step
def table(squares: list[int]):
    import pandas as pd

    return pd.DataFrame({"square": list(squares), "name": [f"row {square}" for square in squares]})


@step
def arrays() -> tuple[Annotated[object, "grid"], Annotated[object, "price"]]:
    import numpy as np

    return np.arange(6.0).reshape(2, 3), Decimal("1.50")


@step(step_operator=True)
def long_text(squares: list[int]) -> list[str]:
    return ["a line of text"] * 3000


@step(step_operator=True, retries=1, retry_delay=timedelta(0))
def flaky(marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).touch()
        print("the first try is about to fail")
        raise ConnectionError("the first try fails")
    print("the second try is about to succeed")
    return "second"


@step(step_operator=True)
def broken(rate: float) -> None:
    print("checking the rate")
    raise ValueError("the rate is negative")


@step(step_operator=True)
def dies(code: int) -> None:
    import os

    os._exit(code)


@step(step_operator=True, secrets={"TOKEN": "env:NO_SUCH_TOKEN"})
def refused() -> None:
    pass


@step(step_operator=True, image=Image(requirements=["gone @ http://127.0.0.1:9/gone-1-py3-none-any.whl"]))
def without_image() -> None:
    pass


@step
def fails_in_worker() -> None:
    raise KeyError("missing")


@pipeline
def past(marker: str = ""):
    given = numbers()
    squares = square.expand(number=given)
    table(squares)
    arrays()
    long_text(given)
    flaky(marker)
    broken(-0.1)
    dies(3)
    refused()
    without_image()
    fails_in_worker()
"""


STATES = {
    "numbers": "succeeded",
    "square[0]": "succeeded",
    "square[1]": "succeeded",
    "table": "succeeded",
    "arrays": "succeeded",
    "long_text": "succeeded",
    "flaky": "succeeded",
    "broken": "failed",
    "dies": "failed",
    "refused": "failed",
    "without_image": "failed",
    "fails_in_worker": "failed",
}


@dataclass(frozen=True)
class PastRun:
    """The run, and where its documents are.

    :param home: ``STEPOPS_HOME`` of the run.
    :param began: Unix time before it.
    """

    run: FinishedRun
    home: Path
    began: float
    ended: float

    @property
    def dag_id(self) -> str:
        return self.run.dag_id

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore((self.home / "artifacts").as_uri())


@pytest.fixture(scope="session")
def ended_run(migrated_database: None, tmp_path_factory: pytest.TempPathFactory) -> PastRun:
    """The run; :func:`past_run` is it at its home."""
    home = tmp_path_factory.mktemp("past")
    airflow = InProcessAirflow(DAGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPOPS_HOME", str(home))
        patch.setenv("UV_HTTP_RETRIES", "0")  # for the step whose image cannot be made
        airflow.write("past.py", DAG_FILE)
        began = time.time()
        run = airflow.run("past", {"marker": str(home / "tried")})
    shutil.rmtree(DAGS)
    DAGS.mkdir()
    return PastRun(run, home, began, time.time())


def copied(past: PastRun, folder: Path, patch: pytest.MonkeyPatch) -> ArtifactStore:
    """Return a copy of the run's artifact store, which the environment says to use."""
    shutil.copytree(past.home / "artifacts", folder / "artifacts")
    patch.setenv("STEPOPS_HOME", str(folder))
    return ArtifactStore((folder / "artifacts").as_uri())


@pytest.fixture
def past_run(ended_run: PastRun, monkeypatch: pytest.MonkeyPatch) -> PastRun:
    """The run, with the environment of the installation that made it. Tests leave its documents as they are."""
    monkeypatch.setenv("STEPOPS_HOME", str(ended_run.home))
    monkeypatch.delenv("STEPOPS_CONFIG", raising=False)
    return ended_run
