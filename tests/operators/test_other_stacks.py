"""Values that go from a step of one stack to a step of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_stepops.client import Client
from tests.airflow_env import FinishedRun, InProcessAirflow

DAG = """\
from airflow_stepops.dag import Image, pipeline, step


@step
def numbers():
    return list(range(20_000))


@step(step_operator=True, stack="other")
def total(numbers, named):
    return [sum(numbers), sum(sum(part) for part in named["parts"])]


@pipeline(stack="first")
def across():
    many = numbers()
    total(many, {"parts": [many, [1, 2]]})
"""

STACKS = """\
version: 1
artifact_stores:
  one: {{flavor: local, path: {one}}}
  two: {{flavor: local, path: {two}}}
stacks:
  first: {{artifact_store: one, container_registry: local, step_operators: [local]}}
  other: {{artifact_store: two, container_registry: local, step_operators: [local]}}
"""


@pytest.fixture
def run(airflow_in_process: InProcessAirflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinishedRun:
    file = tmp_path / "stepops.yaml"
    file.write_text(STACKS.format(one=tmp_path / "one", two=tmp_path / "two"))
    monkeypatch.setenv("STEPOPS_CONFIG", str(file))
    airflow_in_process.write("across.py", DAG)
    return airflow_in_process.run("across")


def test_a_value_of_another_stack_is_copied_once_and_its_digest_is_kept(run: FinishedRun, tmp_path: Path) -> None:
    assert run.state == "success"
    assert run.xcom("total") == [sum(range(20_000)), sum(range(20_000)) + 3]
    reference = run.xcom("numbers")
    assert reference.uri.startswith((tmp_path / "one").as_uri())
    copies = [path for path in (tmp_path / "two").rglob("inputs/of-another-stack/*") if path.is_file()]
    assert [path.stem for path in copies] == [reference.blake3]
    assert Client().get_run("across", run.run_id, stack="other").step("total").state == "succeeded"
