"""The watcher on the emulated Azure ML."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from airflow_stepops.clouds.azure import service as service_module
from airflow_stepops.clouds.azure.service import AzureMLJobService
from airflow_stepops.clouds.azure.step_operator import TAG, AzureMLStepOperator
from airflow_stepops.errors import JobRefusedError
from airflow_stepops.jobs.protocol import JobState
from tests.clouds.azure.azureml import GROUP, WORKSPACE, AzureML
from tests.clouds.azure.compute import Job
from tests.clouds.azure.emulated import EmulatedAzure
from tests.clouds.watching import (  # noqa: F401 - they run here with the cloud below
    WatchedCloud,
    test_a_clock_that_is_minutes_off_loses_no_end,
    test_a_deadline_is_kept_by_the_clock_of_the_service,
    test_a_job_that_may_not_be_described_harms_no_other,
)


class WatchedAzureML(WatchedCloud):
    def __init__(self, component: AzureMLStepOperator, workspace: AzureML) -> None:
        super().__init__(component, workspace.azure.clock)
        self.workspace = workspace

    def new_job(self, *, runs: bool) -> str:
        name = f"watched-{uuid.uuid4().hex}"
        job = self.workspace.jobs[name] = Job(name, {"tags": {TAG: name}}, "image", self.clock)
        job.move("Running" if runs else "Queued")
        return name

    def end(self, job_id: str, state: JobState = JobState.SUCCEEDED) -> None:
        self.workspace.jobs[job_id].move("Completed" if state is JobState.SUCCEEDED else "Canceled")

    def is_stopping(self, job_id: str) -> bool:
        return self.workspace.jobs[job_id].stop.is_set()

    def deny(self, job_id: str) -> Callable[[], None]:
        failing = self.workspace.azure.fail("arm", f"/jobs/{job_id}$", 403, "AuthorizationFailed")
        return lambda: setattr(failing, "times", 0)


@pytest.fixture
def cloud(
    azure: EmulatedAzure, workspace: AzureML, connection: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WatchedAzureML]:
    monkeypatch.setattr(AzureMLJobService, "poll_seconds", 0.2)
    monkeypatch.setattr(AzureMLJobService, "seconds_between_calls", 0.0)
    component = AzureMLStepOperator(resource_group=GROUP, workspace_name=WORKSPACE, connection=connection)
    yield WatchedAzureML(component, workspace)
    azure.clock.ahead = 0.0


def test_a_lost_job_that_may_not_be_stopped_does_not_fail_the_sweep(
    cloud: WatchedAzureML, workspace: AzureML, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, other = cloud.new_job(runs=True), cloud.new_job(runs=True)
    workspace.silent.add(lost)
    monkeypatch.setattr(service_module, "_SILENCE", 0.0)
    failing = workspace.azure.fail("arm", f"/jobs/{lost}/cancel$", 403, "AuthorizationFailed")
    service = cloud.component.connect()
    changed = service.changed(cloud.clock.now().timestamp())
    assert changed[lost] is None
    assert changed[other].state is JobState.RUNNING
    with pytest.raises(JobRefusedError):
        service.describe(lost)
    failing.times = 0
    assert service.describe(lost).state is JobState.FAILED
    cloud.end(lost)
    cloud.end(other)
