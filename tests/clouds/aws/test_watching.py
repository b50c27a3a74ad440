"""The watcher on the emulated SageMaker."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from airflow_stepops.clouds.aws.service import SageMakerJobService
from airflow_stepops.clouds.aws.step_operator import SageMakerStepOperator
from airflow_stepops.jobs.protocol import JobState
from tests.clouds.aws.emulated import EmulatedAws
from tests.clouds.aws.sagemaker import ROLE, Job, SageMaker
from tests.clouds.watching import (  # noqa: F401 - they run here with the cloud below
    WatchedCloud,
    test_a_clock_that_is_minutes_off_loses_no_end,
    test_a_deadline_is_kept_by_the_clock_of_the_service,
    test_a_job_that_may_not_be_described_harms_no_other,
)


class WatchedSageMaker(WatchedCloud):
    def __init__(self, component: SageMakerStepOperator, sagemaker: SageMaker) -> None:
        super().__init__(component, sagemaker.aws.clock)
        self.sagemaker = sagemaker

    def new_job(self, *, runs: bool) -> str:
        job = Job("Training", {"TrainingJobName": f"watched-{uuid.uuid4().hex}"}, self.clock)
        job.move("InProgress", "Training" if runs else "Pending")
        self.sagemaker.jobs[job.name] = job
        return job.name

    def end(self, job_id: str, state: JobState = JobState.SUCCEEDED) -> None:
        word = {JobState.SUCCEEDED: "Completed", JobState.STOPPED: "Stopped"}[state]
        self.sagemaker.jobs[job_id].move(word, word)

    def is_stopping(self, job_id: str) -> bool:
        return self.sagemaker.jobs[job_id].stop.is_set()

    def deny(self, job_id: str) -> Callable[[], None]:
        self.sagemaker.denied.add(job_id)
        return lambda: self.sagemaker.denied.discard(job_id)


@pytest.fixture
def cloud(
    aws: EmulatedAws, emulated: SageMaker, connection: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WatchedSageMaker]:
    monkeypatch.setattr(SageMakerJobService, "poll_seconds", 0.2)
    monkeypatch.setattr(SageMakerJobService, "seconds_between_calls", 0.0)
    yield WatchedSageMaker(SageMakerStepOperator(role=ROLE, connection=connection), emulated)
    aws.clock.ahead = 0.0
