"""The step operator of the tests of jobs, known as a flavor."""

from __future__ import annotations

import pytest

from airflow_stepops.stacks import flavors


@pytest.fixture(autouse=True)
def flavor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ledgers name the step operator."""
    monkeypatch.setitem(flavors._BUILT_IN["step_operators"], "elsewhere", "tests.jobs.test_launch:Operator")
