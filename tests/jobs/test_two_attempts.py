"""A worker that was thought to be dead launches on while the next attempt does: one of their jobs is left."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import EndKind, JobRefusedError
from airflow_stepops.jobs.ledger import CANCEL
from airflow_stepops.jobs.protocol import JobRequest, JobState, JobStatus
from airflow_stepops.runtime.result import SUCCEEDED, JobResult
from tests.jobs.test_launch import Ground, Service, attempt


class Slow(Service):
    """A service at which the first submit, or an answer to it, takes as long as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = ""
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.on_find: Callable[[int], None] = lambda _: None

    def submit(self, request: JobRequest) -> Any:
        self._wait("before submit")
        status = super().submit(request)
        self._wait("after submit")
        return status

    def find(self, name: str) -> JobStatus | None:
        status = super().find(name)
        self.on_find(self.calls["find"])
        return status

    def _wait(self, moment: str) -> None:
        if moment == self.moment:
            self.moment = ""
            self.reached.set()
            assert self.go_on.wait(60)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(ArtifactStore((tmp_path / "store").as_uri()), Slow())


def service_of(ground: Ground) -> Slow:
    assert isinstance(ground.service, Slow)
    return ground.service


@contextmanager
def slow_launch(ground: Ground, moment: str) -> Iterator[Future[Any]]:
    """Let the first attempt's launch have come to a moment, where it waits until the service goes on."""
    service = service_of(ground)
    service.moment = moment
    with ThreadPoolExecutor() as threads:
        launch = threads.submit(ground.launch, 1)
        assert service.reached.wait(60)
        yield launch


def active(ground: Ground) -> list[str]:
    return [job_id for job_id, status in ground.service.jobs.items() if not status.state.ended]


def test_a_job_that_is_submitted_after_the_next_attempt_has_begun_is_stopped(ground: Ground) -> None:
    service = service_of(ground)
    with slow_launch(ground, "before submit") as zombie:
        later = ground.launch(2)
        service.go_on.set()
        with pytest.raises(JobRefusedError, match="nobody waits for job") as refused:
            zombie.result(60)
    assert refused.value.kind is EndKind.CANCELLED
    assert active(ground) == [later.entry.job_id] == [ground.name(2)]
    entry = ground.ledger(1).read()
    assert entry is not None
    assert (entry.state, entry.end_kind) == (JobState.STOPPED.value, EndKind.CANCELLED.value)


def test_a_job_whose_answer_is_late_is_adopted_and_its_launcher_leaves_it_alone(ground: Ground) -> None:
    service = service_of(ground)
    with slow_launch(ground, "after submit") as zombie:
        later = ground.launch(2)
        service.go_on.set()
        with pytest.raises(JobRefusedError, match="attempt-2 ti-2 has begun"):
            zombie.result(60)
    assert active(ground) == [later.entry.job_id] == [ground.name(1)]
    entry = ground.ledger(2).read()
    assert entry is not None
    assert (entry.attempt.try_number, entry.job_attempt.try_number) == (2, 1)
    assert not ground.ledger(1).claim(CANCEL), "what wakes up late for the first attempt may not stop the job"


def test_a_job_that_is_submitted_while_the_next_attempt_looks_for_it_is_stopped(ground: Ground) -> None:
    service = service_of(ground)

    def look(count: int) -> None:
        if count == 1:  # the next attempt has looked, and has not yet said that it wants no such job
            service.go_on.set()
            while ground.name(1) not in service.jobs:
                pass

    service.on_find = look
    with slow_launch(ground, "before submit") as zombie:
        later = ground.launch(2)
        zombie.exception(60)
    assert active(ground) == [later.entry.job_id] == [ground.name(2)]


def test_an_attempt_that_left_no_more_than_an_intention_costs_the_next_one_nothing(ground: Ground) -> None:
    service = service_of(ground)
    service.worker_dies = "before submit"
    with pytest.raises(BaseException, match="before submit"):
        ground.launch(1)
    assert active(ground) == []
    assert ground.launch(2).entry.job_id == ground.name(2)
    assert active(ground) == [ground.name(2)]


def test_a_job_is_adopted_from_an_attempt_that_died_between_its_claim_and_its_ledger(ground: Ground) -> None:
    first = ground.launch(1)
    second = dataclasses.replace(first.entry, attempt=attempt(2))
    assert ground.ledger(1).claim(second.claim)
    for state in (JobState.RUNNING, JobState.SUCCEEDED):
        ground.service.set(ground.name(1), state)
        assert ground.launch(3).entry.job_id == ground.name(1)
    assert ground.names() == [ground.name(1)]
    with pytest.raises(JobRefusedError, match="attempt-3 ti-3 has begun"):
        ground.launch(2)  # it was not dead
    assert ground.names() == [ground.name(1)]


def test_a_job_that_was_to_end_and_ended_well_before_is_gone_on_with(ground: Ground) -> None:
    launch = ground.launch(1)
    ground.store.put(f"{launch.entry.directory}/result.json", JobResult(launch.entry.attempt, SUCCEEDED).to_json())
    ground.service.set(ground.name(1), JobState.SUCCEEDED)
    assert ground.ledger(1).claim(CANCEL)
    assert ground.launch(2).entry.job_id == ground.name(1)
    assert ground.names() == [ground.name(1)]


def test_a_launch_that_finds_its_job_unwanted_and_done_does_not_say_that_it_was_stopped(ground: Ground) -> None:
    service = service_of(ground)
    with slow_launch(ground, "after submit") as zombie:
        service.set(ground.name(1), JobState.SUCCEEDED)
        assert ground.ledger(1).claim(CANCEL)
        service.go_on.set()
        with pytest.raises(JobRefusedError, match="nobody waits for job"):
            zombie.result(60)
    entry = ground.ledger(1).read()
    assert entry is not None
    assert entry.end_kind == ""
