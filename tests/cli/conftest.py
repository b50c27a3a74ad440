from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_stepops.cli.main import run


@dataclass(frozen=True)
class Said:
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Stepops = Callable[..., Said]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, on a machine without a DAGs folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path / "no-dags"))
    monkeypatch.delenv("STEPOPS_CONFIG", raising=False)
    return tmp_path


@pytest.fixture
def stepops(folder: Path, capsys: pytest.CaptureFixture[str]) -> Stepops:
    """Run a command in the folder: ``stepops("stack", "list")``, or one text to be split at blanks."""

    def call(*arguments: str) -> Said:
        words = arguments[0].split() if len(arguments) == 1 else arguments
        capsys.readouterr()
        code = run(list(words))
        printed = capsys.readouterr()
        return Said(code, printed.out, printed.err)

    return call
