"""The watcher on the emulated Vertex AI."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from google.cloud.aiplatform_v1 import types

from airflow_stepops.clouds.gcp.service import VertexJobService
from airflow_stepops.clouds.gcp.step_operator import LABEL, VertexStepOperator
from airflow_stepops.jobs.protocol import JobState
from tests.clouds.gcp.emulated import JOB, EmulatedGcp
from tests.clouds.gcp.vertex import NUMBER, REGION, Job, State, Vertex
from tests.clouds.watching import (  # noqa: F401 - they run here with the cloud below
    WatchedCloud,
    test_a_clock_that_is_minutes_off_loses_no_end,
    test_a_deadline_is_kept_by_the_clock_of_the_service,
    test_a_job_that_may_not_be_described_harms_no_other,
)


class WatchedVertex(WatchedCloud):
    def __init__(self, component: VertexStepOperator, vertex: Vertex) -> None:
        super().__init__(component, vertex.gcp.clock)
        self.vertex = vertex

    def new_job(self, *, runs: bool) -> str:
        number = str(random.randint(10**17, 9 * 10**18))
        shown = types.CustomJob(
            name=f"projects/{NUMBER}/locations/{REGION}/customJobs/{number}",
            labels={LABEL: f"watched-{number}"},
            create_time=self.clock.now(),
        )
        job = self.vertex.jobs[number] = Job(shown, self.clock)
        job.move(State.JOB_STATE_RUNNING if runs else State.JOB_STATE_PENDING)
        return number

    def end(self, job_id: str, state: JobState = JobState.SUCCEEDED) -> None:
        job = self.vertex.jobs[job_id]
        if state is JobState.SUCCEEDED:
            job.move(State.JOB_STATE_SUCCEEDED)
        else:
            job.move(State.JOB_STATE_CANCELLED, 1, "CANCELED")

    def is_stopping(self, job_id: str) -> bool:
        return self.vertex.jobs[job_id].stop.is_set()

    def deny(self, job_id: str) -> Callable[[], None]:
        failing = self.vertex.gcp.fail("aiplatform", f"/customJobs/{job_id}$", 403, "PERMISSION_DENIED")
        return lambda: setattr(failing, "times", 0)


@pytest.fixture
def cloud(
    gcp: EmulatedGcp, emulated: Vertex, connection: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WatchedVertex]:
    monkeypatch.setattr(VertexJobService, "poll_seconds", 0.2)
    monkeypatch.setattr(VertexJobService, "seconds_between_calls", 0.0)
    yield WatchedVertex(VertexStepOperator(region=REGION, service_account=JOB, connection=connection), emulated)
    gcp.clock.ahead = 0.0
