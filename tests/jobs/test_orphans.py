"""Which jobs nobody waits for."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.jobs.ledger import LedgerEntry
from airflow_stepops.jobs.orphans import find_orphans, stop_orphans
from airflow_stepops.jobs.protocol import JobState
from airflow_stepops.jobs.runs import StepRun
from airflow_stepops.runtime.result import SUCCEEDED, JobResult
from tests.jobs.test_launch import ATTEMPT, Ground, Service, WorkerDiedError

YEAR = 365 * 86400.0


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(ArtifactStore((tmp_path / "store").as_uri()), Service())


def over(_: StepRun) -> bool:
    return True


def orphans(ground: Ground) -> list[str]:
    return [step.job_name for step in find_orphans(ground.stack, over, time.time())]


def age(ground: Ground, seconds: float) -> None:
    """Let all that is in the store have been written so long ago."""
    then = time.time() - seconds
    for uri in ground.store.list(ground.store.root):
        os.utime(uri.removeprefix("file://"), (then, then))


def test_a_job_that_was_never_submitted_is_none(ground: Ground) -> None:
    ground.service.worker_dies = "before submit"
    with pytest.raises(WorkerDiedError):
        ground.launch()
    assert orphans(ground) == []


def test_a_job_that_has_run_for_a_year_is_found_and_stopped(ground: Ground) -> None:
    ground.launch()
    ground.service.set(ground.name(1), JobState.RUNNING)
    age(ground, YEAR)
    found = find_orphans(ground.stack, over, time.time())
    assert [one.said for one in stop_orphans(ground.stack, found)] == ["stopped"]
    assert ground.service.jobs[ground.name(1)].state is JobState.STOPPED


def test_a_job_that_left_its_result_long_ago_is_not_asked_for(ground: Ground) -> None:
    launch = ground.launch()
    result = JobResult(ATTEMPT, SUCCEEDED).to_json()
    ground.store.put(f"{launch.entry.directory}/result.json", result)
    age(ground, 30 * 86400)
    ground.service.calls.clear()
    assert orphans(ground) == []
    assert not ground.service.calls


def test_a_job_that_goes_on_after_it_left_its_result_is_found(ground: Ground) -> None:
    launch = ground.launch()
    failed = JobResult(ATTEMPT, "failed").to_json()
    ground.store.put(f"{launch.entry.directory}/result.json", failed)
    ground.service.set(ground.name(1), JobState.RUNNING)
    age(ground, YEAR)
    assert orphans(ground) == []
    age(ground, 60)
    assert orphans(ground) == [ground.name(1)]


def test_the_job_of_a_run_that_was_deleted_is_found_beside_that_of_the_run_made_again(ground: Ground) -> None:
    ground.launch()
    ground.launch(instance="made again", ti_id="ti-again")
    found = find_orphans(ground.stack, lambda step: step.attempt.instance == ATTEMPT.instance, time.time())
    assert [step.job_name for step in found] == [ground.name(1)]
    assert [one.step.job_name for one in stop_orphans(ground.stack, found)] == [ground.name(1)]
    active = [name for name, status in ground.service.jobs.items() if not status.state.ended]
    assert len(active) == 1
    assert active != [ground.name(1)]


def test_a_forged_entry_is_no_way_to_stop_a_job_of_somebody_else(ground: Ground) -> None:
    launch = ground.launch()
    ground.service.set("another-teams-job", JobState.RUNNING)
    for forged in (
        dataclasses.replace(launch.entry, job_name="another-teams-job", job_id="another-teams-job"),
        dataclasses.replace(launch.entry, job_id="another-teams-job"),
    ):
        write(ground, forged)
        found = find_orphans(ground.stack, over, time.time())
        assert all(one.failed for one in stop_orphans(ground.stack, found))
    assert ground.service.jobs["another-teams-job"].state is JobState.RUNNING


def write(ground: Ground, entry: LedgerEntry) -> None:
    """Write an entry as a job may."""
    ground.store.put(f"{ground.spec(1).directory}/job.json", entry.to_json())
