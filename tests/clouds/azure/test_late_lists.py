"""Jobs on an Azure ML whose list of jobs is behind."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_stepops.clouds.azure.service import AzureMLJobService
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.protocol import JobState
from airflow_stepops.jobs.watcher import WatchedJob, Watcher
from tests.clouds.azure.azureml import AzureML
from tests.clouds.azure.ground import OnAzureML
from tests.clouds.ground import ended


@pytest.fixture(autouse=True)
def _late(workspace: AzureML, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AzureMLJobService, "poll_seconds", 0.2)
    monkeypatch.setattr(workspace, "lag", 1.5)


def test_the_answer_to_create_is_lost_and_the_job_is_found_by_its_name(ground: OnAzureML, workspace: AzureML) -> None:
    service, request = ground.connect(), ground.request("add", 40, 2)
    workspace.lost = 1
    status = patiently(service.submit)(request)
    assert service.changed(time.time() - 60).get(status.id) is None
    found = ground.connect().find(request.name)
    assert found is not None
    assert found.id == status.id
    assert ended(service, status.id).state is JobState.SUCCEEDED
    assert ground.value(request) == 42


def test_jobs_that_the_list_does_not_show_yet_are_watched_to_their_end(ground: OnAzureML) -> None:
    service = ground.connect()
    ids = [service.submit(ground.request("add", 1, 1)).id for _ in range(3)]

    async def watch() -> list[JobState]:
        watcher = Watcher(ground.connect)
        waiting = [watcher.wait(WatchedJob(job_id, time.time()), lambda _: None) for job_id in ids]
        async with asyncio.timeout(60):
            return [status.state for status in await asyncio.gather(*waiting)]

    assert asyncio.run(watch()) == [JobState.SUCCEEDED] * 3
