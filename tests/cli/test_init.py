"""A project from nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import uv

from airflow_stepops.cli import init
from tests.cli.conftest import Stepops

CHECKOUT = Path(__file__).resolve().parents[2]


def test_a_new_project_runs_and_its_tests_pass(
    stepops: Stepops, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said = stepops("init", "demo")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("Run it: cd demo && stepops run pipeline.py\n")
    home = tmp_path_factory.mktemp("home")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("AIRFLOW", "STEPOPS_"))}
    environment |= {"HOME": str(home), "AIRFLOW_HOME": str(home / "airflow")}
    for command in (
        [str(Path(sys.executable).with_name("stepops")), "run", "pipeline.py", "--param", "held_back=1"],
        [sys.executable, "-m", "pytest", "-q"],
    ):
        done = subprocess.run(
            command, cwd=folder / "demo", env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_nothing_is_written_over(stepops: Stepops, folder: Path) -> None:
    (folder / "pipeline.py").write_text("mine = 1\n")
    (folder / ".gitignore").write_text("")
    said = stepops("init")
    assert said.code == 2
    assert ".gitignore, pipeline.py already" in said.err
    assert said.err.count("\n") == 1
    assert sorted(os.listdir(folder)) == [".gitignore", "pipeline.py"]


def test_a_folder_that_cannot_be_made_is_said(stepops: Stepops, folder: Path) -> None:
    (folder / "file").write_text("")
    said = stepops("init", "file/project")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "file/project" in said.err


def test_the_wheel_holds_what_a_project_is_made_of(tmp_path: Path) -> None:
    command = [uv.find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(CHECKOUT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    template = Path(init.__file__).parent / "template"
    ours = {path.relative_to(CHECKOUT).as_posix() for path in template.rglob("*") if path.suffix != ".pyc"}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in ours if not (CHECKOUT / name).is_dir()} <= set(archive.namelist())
