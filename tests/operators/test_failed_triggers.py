"""A task whose trigger failed, or that waited too long, stops its job, whatever has become of the stack since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import TaskDeferred

from airflow_stepops import settings
from airflow_stepops.clouds.local.service import LocalJobService
from airflow_stepops.errors import EndKind, JobFailedError
from airflow_stepops.jobs.protocol import JobState
from tests.airflow_env import InProcessAirflow
from tests.faults.worker import context_of

STACKS = """\
version: 1
active: local
step_operators:
  renamed_since: {flavor: local}
stacks:
  before: {artifact_store: local, container_registry: local, step_operators: [renamed_since]}
"""

WAITING = """\
import time

from airflow_stepops.dag import pipeline, step


@step(step_operator=True)
def count():
    time.sleep(600)


@pipeline(stack="before")
def journey():
    count()
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalJobService:
    monkeypatch.setenv("STEPOPS_HOME", str(tmp_path / "home"))
    return LocalJobService(settings.home() / "jobs")


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ("no module named 'other_cloud'", EndKind.INFRASTRUCTURE, "the trigger that waited for the job failed"),
        ("Trigger timeout", EndKind.TIMEOUT, "was there longer than"),
    ],
)
def test_the_job_is_stopped_though_the_stack_is_another_one_by_now(
    airflow_in_process: InProcessAirflow, jobs: LocalJobService, tmp_path: Path, error: str, kind: EndKind, said: str
) -> None:
    stack_file = airflow_in_process.write("stepops.yaml", STACKS)
    airflow_in_process.write("journey.py", WAITING)
    task: Any = airflow_in_process.dag("journey").get_task("count")
    context = context_of(tmp_path, "run", 1)
    with pytest.raises(TaskDeferred):
        task.execute(context)
    (job_id,) = jobs.changed(0)
    stack_file.write_text("version: 1\nactive: local\n")
    with pytest.raises(JobFailedError, match=said) as failed:
        task.resume_execution("__fail__", {"error": error}, context)
    assert failed.value.kind is kind
    assert error in str(failed.value) or kind is EndKind.TIMEOUT
    assert jobs.describe(job_id).state is JobState.STOPPED
