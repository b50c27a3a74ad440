"""Which jobs nobody waits for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.jobs.attempt import attempt_directory, job_name
from airflow_stepops.jobs.ledger import Ledger, LedgerEntry
from airflow_stepops.jobs.orphans import find_orphans
from airflow_stepops.runtime.spec import Attempt

ATTEMPT = Attempt("churn", "manual__1", "train", -1, 1)


def test_a_job_that_was_never_submitted_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPOPS_HOME", str(tmp_path / "home"))
    store = ArtifactStore((tmp_path / "store").as_uri())
    directory, name = attempt_directory(store.root, ATTEMPT), job_name(store.root, ATTEMPT)
    component = {"flavor": "local", "name": "local"}
    Ledger(store, ATTEMPT).open(LedgerEntry(ATTEMPT, directory, ATTEMPT, "0" * 64, component, name))
    assert find_orphans(store, lambda _: "failed", time.time()) == []
