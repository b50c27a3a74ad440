"""A job that is waited for while the keys of its connection are changed."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid

import pytest

from airflow_stepops.clouds.aws.service import SageMakerJobService
from airflow_stepops.clouds.aws.step_operator import SageMakerStepOperator
from airflow_stepops.jobs.protocol import JobState, JobStatus
from airflow_stepops.jobs.waiting import WatchedJob
from airflow_stepops.jobs.watcher import shared_watcher
from tests.clouds.aws.conftest import Connect
from tests.clouds.aws.emulated import EmulatedAws
from tests.clouds.aws.sagemaker import ROLE, Job, SageMaker

OLD, NEW = "AKIAOFYESTERDAY00000", "AKIAOFTODAY000000000"


@pytest.mark.parametrize("together", [1, 2], ids=["one job", "several jobs"])
def test_keys_that_are_changed_while_jobs_run_are_read_again_and_no_job_fails(
    together: int,
    connect: Connect,
    aws: EmulatedAws,
    emulated: SageMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SageMakerJobService, "poll_seconds", 0.2)
    connection = connect(login=OLD)
    component = SageMakerStepOperator(role=ROLE, connection=connection)
    jobs = [Job("Training", {"TrainingJobName": f"long-{uuid.uuid4().hex}"}) for _ in range(together)]
    for job in jobs:
        emulated.jobs[job.name] = job
        job.move("InProgress", "Training")
    said: list[str] = []

    async def day() -> list[JobStatus]:
        watcher = shared_watcher(component.account_key(), component.connect)
        watched = [WatchedJob(job.name, submitted_at=time.time()) for job in jobs]
        waiting = [asyncio.create_task(watcher.wait(job, said.append)) for job in watched]
        async with asyncio.timeout(120):
            while sum(line.startswith("job is running") for line in said) < together:
                await asyncio.sleep(0.05)
            aws.revoked.add(OLD)
            while not any("does not take the credentials" in line for line in said):
                await asyncio.sleep(0.05)
            _rotate(connection, monkeypatch)
            for job in jobs:
                job.move("Completed", "Completed")
            return await asyncio.gather(*waiting)

    try:
        assert [status.state for status in asyncio.run(day())] == [JobState.SUCCEEDED] * together
    finally:
        aws.revoked.clear()
    assert aws.signed_with[-1] == (NEW, "")


def _rotate(connection: str, patch: pytest.MonkeyPatch) -> None:
    """Give the Airflow connection other keys, as a person does in Airflow."""
    variable = f"AIRFLOW_CONN_{connection.upper()}"
    patch.setenv(variable, json.dumps({**json.loads(os.environ[variable]), "login": NEW}))
