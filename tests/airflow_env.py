"""An Airflow inside the test process: a migrated SQLite database and a folder of DAGs of its own.

A pytest plugin, loaded by ``tests/conftest.py``. Importing it sets Airflow's environment, so nothing may import Airflow
before. In a test::

    def test_two_steps(airflow_in_process):
        airflow_in_process.write("two.py", "from airflow_stepops.dag import …")
        run = airflow_in_process.run("two", {"lr": 0.3})         # dag.test(): first 6 s, then 0.3 s
        assert run.state == "success"
        assert run.xcom("train") == 3
        assert run.states == {"load": "success", "train": "success"}   # "train[0]" for mapped tasks

Each test starts with an empty DAG folder (``airflow_in_process.dags``); a ``stepops.yaml`` may be written there too.
Tasks run in this process, triggers too, one after another. What happens between processes is tested on
``tools.airflow_home.running_airflow``.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow.sdk import DAG

HOME = Path(tempfile.mkdtemp(prefix="stepops-tests-")).resolve()
DAGS = HOME / "dags"


def _prepare() -> None:
    atexit.register(shutil.rmtree, HOME, ignore_errors=True)
    DAGS.mkdir()
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "STEPOPS_"))]:
        del os.environ[name]
    # Wheels are downloaded once for all the homes that tests have.
    os.environ.setdefault("UV_CACHE_DIR", str(Path("~/.cache/uv").expanduser()))
    os.environ |= {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


_prepare()


@dataclass(frozen=True)
class FinishedRun:
    """A run of a DAG that has ended.

    :param state: ``"success"`` or ``"failed"``.
    :param states: state of each task instance, by ``task_id`` or ``task_id[map_index]``.
    """

    dag_id: str
    run_id: str
    state: str
    states: dict[str, str]

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom as a task would read it, ``None`` when there is none."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        from tests.airflow_versions import deserialized

        with create_session() as session:
            query = XComModel.get_many(
                run_id=self.run_id, key=key, task_ids=task_id, dag_ids=self.dag_id, map_indexes=map_index
            )
            row = session.execute(query.with_only_columns(XComModel.value)).first()
            return None if row is None else deserialized(XComModel.deserialize_value(row))


class InProcessAirflow:
    """Runs DAGs of its folder in this process.

    :param dags: the DAG folder.
    """

    def __init__(self, dags: Path) -> None:
        self.dags = dags

    def write(self, name: str, text: str) -> Path:
        """Write a file below the DAG folder and return its path."""
        path = self.dags / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def dag(self, dag_id: str) -> DAG:
        """Parse the DAG folder as Airflow does and return one DAG.

        :raises AssertionError: with the tracebacks of files that cannot be imported.
        """
        from tests.airflow_versions import dag_bag

        bag = dag_bag(self.dags)
        assert not bag.import_errors, "\n".join(bag.import_errors.values())
        assert dag_id in bag.dags, f"there is no DAG {dag_id!r} in {sorted(bag.dags)}"
        return bag.dags[dag_id]

    def import_errors(self) -> dict[str, str]:
        """Return the tracebacks of the DAG files that cannot be imported, by file name."""
        from tests.airflow_versions import dag_bag

        bag = dag_bag(self.dags)
        return {Path(file).name: trace for file, trace in bag.import_errors.items()}

    def run(self, dag_id: str, conf: dict[str, Any] | None = None) -> FinishedRun:
        """Run a DAG to its end.

        :param conf: params of the run.
        """
        run = self.dag(dag_id).test(run_conf=conf)
        states = {
            ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": str(ti.state)
            for ti in run.get_task_instances()
        }
        return FinishedRun(dag_id, run.run_id, str(run.state), states)


@pytest.fixture(scope="session")
def migrated_database() -> None:
    """Airflow's tables, made once."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def airflow_in_process(migrated_database: None) -> Iterator[InProcessAirflow]:
    """An Airflow that runs DAGs in this process; its DAG folder is emptied afterwards."""
    yield InProcessAirflow(DAGS)
    shutil.rmtree(DAGS)
    DAGS.mkdir()
