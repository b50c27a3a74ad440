"""What runs on this machine leave in the home folder."""

from __future__ import annotations

import os
import signal
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from airflow_stepops.cli.local_airflow import local_airflow
from tests.images.builds import ended, in_a_process


def test_what_a_killed_run_left_goes_and_a_run_that_goes_on_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPOPS_HOME", str(tmp_path))
    runs = tmp_path / "local-runs"
    runs.mkdir()
    (runs / f"empty-{version('apache-airflow')}.db").touch()
    (runs / ".empty-3.0.0.db-1").touch()
    os.utime(runs / ".empty-3.0.0.db-1", (time.time() - 2 * 24 * 3600,) * 2)

    def killed() -> None:
        with local_airflow(tmp_path) as folder:
            (folder / "log").write_text("said")
            os.kill(os.getpid(), signal.SIGKILL)

    def again() -> None:
        with local_airflow(tmp_path), local_airflow(tmp_path):
            assert len(list(runs.glob("*/airflow.db"))) == 2

    assert ended(in_a_process(killed)) == -signal.SIGKILL
    assert len(list(runs.glob("*/airflow.db"))) == 1
    assert ended(in_a_process(again)) == 0
    (left,) = [path for path in runs.iterdir() if path.is_dir()]
    assert [path.name for path in left.iterdir()] == ["log"]
    assert not list(runs.glob(".empty-*"))
