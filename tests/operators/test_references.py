"""References in ordinary tasks: their values are loaded from the stores of the stack file, as a step would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow_env import InProcessAirflow

#: A store that can be opened only by what an Airflow connection says, as one in a cloud.
FLAVOR = """\
from typing import ClassVar

from airflow_stepops.stacks.components import ArtifactStoreComponent


class Vault(ArtifactStoreComponent):
    flavor: ClassVar[str] = "vault"

    bucket: str
    connection: str

    def root(self):
        return f"s3://{self.bucket}/values"

    def open(self):
        from airflow.sdk import BaseHook
        from obstore.store import LocalStore

        from airflow_stepops.artifacts.store import ArtifactStore

        return ArtifactStore(self.root(), LocalStore(prefix=BaseHook.get_connection(self.connection).host))
"""

STACKS = """\
version: 1
active: vault
artifact_stores:
  vault: {flavor: vault, bucket: stepops-tests, connection: vault}
  other: {flavor: vault, bucket: stepops, connection: there_is_none}
stacks:
  vault: {artifact_store: vault, container_registry: local}
"""

#: A list that is too long to travel in XCom as itself.
DAG = """\
from airflow.sdk import task

from airflow_stepops.dag import pipeline, step


@step
def numbers():
    return list(range(20_000))


@task
def total(reference):
    return [type(reference).__name__, reference.uri, sum(reference.load())]


@pipeline
def totals():
    total(numbers())
"""

NO_STEP = """\
from airflow.sdk import dag, task

from airflow_stepops.artifacts import ArtifactReference


@task
def found(params):
    return ArtifactReference(**params["reference"])


@task
def total(reference):
    return sum(reference.load())


@dag(params={"reference": {}})
def no_step():
    total(found())


no_step()
"""


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of packages that brings the flavor; the store that its connection leads to is empty."""
    packages = tmp_path / "packages"
    metadata = packages / "vault-1.dist-info"
    metadata.mkdir(parents=True)
    (packages / "vault_flavor.py").write_text(FLAVOR)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vault\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[airflow_stepops.artifact_stores]\nvault = vault_flavor:Vault\n")
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("AIRFLOW_CONN_VAULT", json.dumps({"conn_type": "generic", "host": str(tmp_path / "store")}))
    monkeypatch.syspath_prepend(packages)
    yield packages
    sys.modules.pop("vault_flavor", None)


@pytest.mark.parametrize("folder", ["", "team/"])
def test_an_ordinary_task_loads_a_value_with_the_credentials_of_the_stack(
    airflow_in_process: InProcessAirflow, vault: Path, folder: str
) -> None:
    airflow_in_process.write(f"{folder}stepops.yaml", STACKS)
    airflow_in_process.write(f"{folder}totals.py", DAG)
    run = airflow_in_process.run("totals")
    assert run.states == {"numbers": "success", "total": "success"}
    kind, uri, total = run.xcom("total")
    assert (kind, total) == ("ArtifactReference", sum(range(20_000)))
    assert uri.startswith("s3://stepops-tests/values/runs/totals/")


def test_outside_of_a_task_a_value_is_loaded_by_the_stack_file_beside_the_dags(
    airflow_in_process: InProcessAirflow, vault: Path
) -> None:
    airflow_in_process.write("stepops.yaml", STACKS)
    airflow_in_process.write("totals.py", DAG)
    assert len(airflow_in_process.run("totals").xcom("numbers").load()) == 20_000


def test_a_dag_without_a_step_loads_what_a_step_of_another_left(
    airflow_in_process: InProcessAirflow, vault: Path
) -> None:
    airflow_in_process.write("stepops.yaml", STACKS)
    airflow_in_process.write("totals.py", DAG)
    reference = airflow_in_process.run("totals").xcom("numbers")
    airflow_in_process.write("totals.py", "")
    airflow_in_process.write("no_step.py", NO_STEP)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "airflow",
            "dags",
            "test",
            "no_step",
            "-c",
            json.dumps({"reference": reference.serialize()}),
        ],
        env={**os.environ, "PYTHONPATH": str(vault)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Returned value was: {sum(range(20_000))}" in done.stdout + done.stderr
