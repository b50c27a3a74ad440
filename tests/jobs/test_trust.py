"""Ledgers of earlier attempts: settings that were wrong, a stack that has changed, and what somebody has forged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import EndKind, JobRefusedError, SpecError, TransientServiceError
from airflow_stepops.jobs import launch as launching
from airflow_stepops.jobs.ledger import LedgerEntry
from airflow_stepops.jobs.protocol import JobState, JobStatus
from airflow_stepops.runtime.result import FAILED, SUCCEEDED, JobResult
from tests.jobs.stand_in import InMemoryService
from tests.jobs.test_launch import ATTEMPT, Ground, Operator, Service, WorkerDiedError


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(ArtifactStore((tmp_path / "store").as_uri()), Service())


@pytest.fixture
def east(monkeypatch: pytest.MonkeyPatch) -> InMemoryService:
    """The service of another region."""
    service = InMemoryService()
    monkeypatch.setitem(Operator.services, "east", service)
    return service


def write(ground: Ground, entry: LedgerEntry, **changes: Any) -> None:
    """Write the entry of the first attempt as a job may, which can write into the store."""
    uri = f"{ground.spec(1).directory}/job.json"
    ground.store.put(uri, dataclasses.replace(entry, **changes).to_json())


def in_region(ground: Ground, region: str) -> None:
    """Let the stack name another region."""
    ground.operator = Operator(name="here", region=region)


def die_before_submit(ground: Ground) -> None:
    ground.service.worker_dies = "before submit"
    with pytest.raises(WorkerDiedError):
        ground.launch()


@pytest.mark.parametrize("last_try", [1, 2], ids=["retry", "clear"])
def test_a_region_that_was_wrong_is_forgotten_when_the_stack_is_corrected(ground: Ground, last_try: int) -> None:
    in_region(ground, "wset")
    with pytest.raises(JobRefusedError, match="there is no region wset"):
        ground.launch()
    in_region(ground, "west")
    assert ground.launch(2, last_try=last_try).entry.job_name == ground.name(2)
    assert "is not looked for: there is no region wset" in " ".join(ground.said)


def test_a_service_that_is_away_is_not_passed_by_where_the_job_would_be_launched(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_before_submit(ground)
    monkeypatch.setattr(launching, "patiently", lambda call: call)
    ground.service.fail("find", 1)
    with pytest.raises(TransientServiceError):
        ground.launch(2)
    assert ground.names() == []


def test_a_service_that_is_away_elsewhere_does_not_block_where_it_has_no_job(
    ground: Ground, east: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_before_submit(ground)
    in_region(ground, "east")
    monkeypatch.setattr(launching, "patiently", lambda call: call)
    ground.service.fail("find", 5)
    assert ground.launch(2).entry.job_name in east.jobs


def test_a_step_operator_that_is_gone_does_not_block_where_it_has_no_job(ground: Ground) -> None:
    die_before_submit(ground)
    ground.operator = Operator(name="renamed")
    assert ground.launch(2).entry.job_name == ground.name(2)


def test_the_job_is_found_where_it_was_launched_though_the_stack_names_another_region(
    ground: Ground, east: InMemoryService
) -> None:
    ground.launch()
    in_region(ground, "east")
    second = ground.launch(2)
    assert (second.entry.job_id, second.entry.component.get("region")) == (ground.name(1), None)
    assert east.jobs == {}
    ground.launch(3, rate=0.2)
    assert ground.service.jobs[ground.name(1)].state is JobState.STOPPED
    assert list(east.jobs) == [ground.name(3)]


def test_the_launch_of_an_attempt_that_is_run_again_elsewhere_goes_on_with_its_job(
    ground: Ground, east: InMemoryService
) -> None:
    ground.service.worker_dies = "after submit"
    with pytest.raises(WorkerDiedError):
        ground.launch()
    in_region(ground, "east")
    again = ground.launch()
    assert (again.entry.job_id, again.entry.component.get("region")) == (ground.name(1), None)
    assert east.jobs == {}


def test_a_job_that_cannot_be_asked_for_is_named_with_what_to_do(ground: Ground) -> None:
    ground.launch()
    ground.operator = Operator(name="renamed")
    with pytest.raises(JobRefusedError) as refused:
        ground.launch(2)
    for part in (f"job {ground.name(1)} of attempt 1 may still run", "no step operator 'here'", "attempt-1/job.json"):
        assert part in str(refused.value)
    assert refused.value.kind is EndKind.INVALID_REQUEST
    assert ground.names() == [ground.name(1)]


def test_only_the_place_of_a_job_is_believed(ground: Ground) -> None:
    first = ground.launch().entry
    write(ground, first, component={**first.component, "size": "forged"})
    assert "size" not in ground.launch(2).entry.component


@pytest.mark.parametrize(
    "forged",
    [
        {"job_name": "another-teams-job", "job_id": "another-teams-job"},
        {"job_id": "another-teams-job"},
        {"job_attempt": dataclasses.replace(ATTEMPT, instance="another teams")},
        {"directory": "ROOT/runs/other/manual__1/train/-1/instance/attempt-1"},
    ],
    ids=lambda forged: "+".join(forged),
)
@pytest.mark.parametrize("rate", [0.1, 0.2], ids=["same work", "other work"])
def test_a_forged_ledger_makes_no_attempt_adopt_or_stop_the_job_of_somebody_else(
    ground: Ground, forged: dict[str, Any], rate: float
) -> None:
    first = ground.launch().entry
    ground.service.set("another-teams-job", JobState.RUNNING)
    write(
        ground,
        first,
        **{
            field: value.replace("ROOT", ground.store.root) if field == "directory" else value
            for field, value in forged.items()
        },
    )
    with pytest.raises(SpecError, match=r"^\S*/?ledger|job\.json: ledger"):
        ground.launch(2, rate=rate)
    assert ground.service.jobs["another-teams-job"].state is JobState.RUNNING
    assert ground.names() == [ground.name(1)]


def test_a_job_with_an_id_of_its_own_must_have_the_name_that_the_ledger_says(ground: Ground) -> None:
    first = ground.launch().entry
    ground.service.jobs["7"] = JobStatus("7", JobState.RUNNING, name="another-teams-job")
    write(ground, first, job_id="7")
    with pytest.raises(SpecError, match="job_id='7' is job 'another-teams-job', not"):
        ground.launch(2)
    ground.service.jobs["8"] = JobStatus("8", JobState.RUNNING, name=ground.name(1))
    write(ground, first, job_id="8")
    assert ground.launch(2).entry.job_id == "8"


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.STOPPED])
def test_a_valid_result_is_used_whatever_the_service_says_of_its_job(ground: Ground, state: JobState) -> None:
    first = ground.launch().entry
    ground.store.put(f"{first.directory}/result.json", JobResult(first.attempt, SUCCEEDED).to_json())
    ground.service.set(ground.name(1), state)
    assert ground.launch(2).entry.job_id == ground.name(1)
    assert ground.names() == [ground.name(1)]


@pytest.mark.parametrize(
    "result", [JobResult(ATTEMPT, FAILED), JobResult(dataclasses.replace(ATTEMPT, ti_id="old"), SUCCEEDED)]
)
def test_a_result_that_is_no_success_of_the_attempt_is_not_used(ground: Ground, result: JobResult) -> None:
    first = ground.launch().entry
    ground.store.put(f"{first.directory}/result.json", result.to_json())
    ground.service.set(ground.name(1), JobState.FAILED)
    assert ground.launch(2).entry.job_id == ground.name(2)


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED])
def test_a_deployment_that_changes_other_code_leaves_job_and_result_to_the_retry(
    ground: Ground, state: JobState
) -> None:
    ground.launch(image="image@sha256:1")
    ground.service.set(ground.name(1), state)
    assert ground.launch(2, image="image@sha256:2").entry.job_id == ground.name(1)
    assert ground.names() == [ground.name(1)]


def test_attempts_of_two_lives_of_a_run_share_nothing(ground: Ground) -> None:
    first = ground.launch()
    ground.service.set(ground.name(1), JobState.SUCCEEDED)
    again = ground.launch(instance="made again", ti_id="ti-again")
    assert again.entry.job_name != first.entry.job_name
    assert again.entry.directory != first.entry.directory
    second = ground.launch(2, instance="made again", ti_id="ti-again-2")
    assert second.entry.job_name == again.entry.job_name
    assert ground.service.jobs[ground.name(1)].state is JobState.SUCCEEDED


def test_a_copied_database_does_not_share_an_attempt(ground: Ground) -> None:
    ground.launch()
    ground.launch(2)
    with pytest.raises(SpecError, match="not of Attempt"):
        ground.launch(2, ti_id="of the copy")
    with pytest.raises(JobRefusedError, match="attempt-2 ti-2 has begun"):
        (ground.store.delete(f"{ground.spec(2).directory}/job.json"))
        ground.launch(2, ti_id="of the copy")
    assert ground.service.jobs[ground.name(1)].state is JobState.PENDING
