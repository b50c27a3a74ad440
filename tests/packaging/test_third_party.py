"""The page "Add a step operator": its package, installed as a wheel, brings a flavor that works everywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-step-operator.md"
DAG = """\
from airflow_stepops.dag import pipeline, step


@step(step_operator=True)
def threads():
    import os

    return os.environ["OMP_NUM_THREADS"]


@step(step_operator=True, settings={"threads": 5})
def more():
    import os

    return os.environ["OMP_NUM_THREADS"]


@pipeline
def frugal():
    threads()
    more()
"""

Stepops = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def stepops(tmp_path_factory: pytest.TempPathFactory) -> Stepops:
    """Run a command in a folder with the stack file of the page and a DAG, with the wheel installed beside."""
    folder = tmp_path_factory.mktemp("third-party")
    source, use = folder / "source", folder / "use"
    for title, text in re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL):
        file = (use if title == "stepops.yaml" else source) / title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (use / "frugal.py").write_text(DAG)
    subprocess.run([uv.find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    install = ["pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", site, wheel]
    subprocess.run([uv.find_uv_bin(), *install], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "STEPOPS"))}
    environment = {**kept, "PYTHONPATH": str(site), "AIRFLOW_HOME": str(folder / "airflow")}
    environment["STEPOPS_HOME"] = str(folder / "home")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).with_name("stepops"), *arguments]
        return subprocess.run(command, cwd=use, env=environment, capture_output=True, text=True, check=False)

    return call


def test_the_flavor_and_its_settings_are_listed(stepops: Stepops) -> None:
    listed = json.loads(stepops("flavor", "list", "--json").stdout)
    (found,) = [flavor for flavor in listed if flavor["flavor"] == "frugal"]
    assert found["kind"] == "step_operators"
    assert [setting["name"] for setting in found["settings"]] == ["fallbacks", "threads"]


def test_a_wrong_setting_of_it_is_named(stepops: Stepops) -> None:
    said = stepops("step-operator", "register", "wrong", "--flavor", "frugal", "--threads", "0")
    assert said.returncode == 2
    assert "threads" in said.stderr


def test_it_runs_steps_with_its_settings_and_those_of_the_step(stepops: Stepops) -> None:
    ran = stepops("run", "frugal.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    run = json.loads(stepops("runs", "list", "--json").stdout)[0]
    shown = json.loads(stepops("runs", "describe", "frugal", run["run_id"], "--json").stdout)
    values = {step["task_id"]: step["outputs"]["return_value"]["value"] for step in shown["steps"]}
    assert values == {"threads": "2", "more": "5"}
    assert {step["where"] for step in shown["steps"]} == {"frugal"}
