"""A stack file of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[[str], Path]

#: A file with a component of each kind.
USUAL = """\
version: 1
active: laptop
artifact_stores:      {files: {flavor: local, path: /data/store}}
container_registries: {cncf: {flavor: generic, uri: "127.0.0.1:5000/team", connection: my_registry}}
image_builders:       {engine: {flavor: docker}}
step_operators:       {here: {flavor: local}, engine: {flavor: docker, network: host}}
stacks:
  laptop: {artifact_store: files, container_registry: cncf, image_builder: engine, step_operators: [engine, here]}
"""


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path / "dags"))
    monkeypatch.delenv("STEPOPS_CONFIG", raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the stack file in the DAG folder and return the folder."""

    def written(text: str) -> Path:
        folder = tmp_path / "dags"
        folder.mkdir(exist_ok=True)
        (folder / "stepops.yaml").write_text(text)
        return folder

    return written
