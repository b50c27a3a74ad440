"""What holds for the watcher on every emulated cloud, through the cloud's own job service."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.protocol import JobState, JobStatus
from airflow_stepops.jobs.waiting import WatchedJob
from airflow_stepops.jobs.watcher import Watcher
from airflow_stepops.stacks.components import StepOperatorComponent
from tests.clouds.clock import Clock

#: Seconds by which a cloud's clock is ahead of this machine's.
skewed = pytest.mark.parametrize("ahead", [-600.0, 600.0], ids=["this clock is ahead", "this clock is behind"])


class WatchedCloud(ABC):
    """An emulated cloud whose jobs are moved by hand.

    :param component: that its jobs are watched with.
    :param clock: of the cloud.
    """

    def __init__(self, component: StepOperatorComponent, clock: Clock) -> None:
        self.component = component
        self.clock = clock

    def make(self, *, runs: bool = True, age: float = 0.0, **limits: int) -> WatchedJob:
        """Make a job that was created so many seconds ago."""
        self.clock.ahead -= age
        created_at = self.clock.now().timestamp()
        job_id = self.new_job(runs=runs)
        self.clock.ahead += age
        return WatchedJob(job_id, created_at, **limits)

    @abstractmethod
    def new_job(self, *, runs: bool) -> str: ...

    @abstractmethod
    def end(self, job_id: str, state: JobState = JobState.SUCCEEDED) -> None: ...

    @abstractmethod
    def is_stopping(self, job_id: str) -> bool: ...

    @abstractmethod
    def deny(self, job_id: str) -> Callable[[], None]:
        """Refuse to describe a job until the returned function is called."""


class Waiting:
    """Those who wait for jobs, and what they are told."""

    def __init__(self, cloud: WatchedCloud) -> None:
        self.watcher = Watcher(cloud.component.connect)
        self.told: dict[str, list[str]] = {}

    def begin(self, job: WatchedJob) -> asyncio.Task[JobStatus]:
        lines = self.told[job.job_id] = []
        return asyncio.create_task(self.watcher.wait(job, lines.append))

    async def until_told(self, text: str, *jobs: WatchedJob) -> None:
        await until(lambda: all(any(text in line for line in self.told[job.job_id]) for job in jobs))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def run(body: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await body

    asyncio.run(bounded())


@skewed
def test_a_clock_that_is_minutes_off_loses_no_end(cloud: WatchedCloud, ahead: float) -> None:
    cloud.clock.ahead = ahead

    async def body() -> None:
        waiting = Waiting(cloud)
        together = [cloud.make(), cloud.make()]
        ends = [waiting.begin(job) for job in together]
        await waiting.until_told("running", *together)
        for job in together:
            cloud.end(job.job_id)
        assert [status.state for status in await asyncio.gather(*ends)] == [JobState.SUCCEEDED] * 2
        # One that ends while it is the only job, at the moment when there are several again.
        lone, other = cloud.make(age=120), cloud.make()
        end = waiting.begin(lone)
        await waiting.until_told("running", lone)
        cloud.end(lone.job_id)
        other_end = waiting.begin(other)
        assert (await end).state is JobState.SUCCEEDED
        cloud.end(other.job_id)
        await other_end

    run(body())


@skewed
def test_a_deadline_is_kept_by_the_clock_of_the_service(cloud: WatchedCloud, ahead: float) -> None:
    cloud.clock.ahead = ahead

    async def body() -> None:
        waiting = Waiting(cloud)
        late = cloud.make(runs=False, age=400, pending_timeout=300)
        early = cloud.make(runs=False, pending_timeout=300)
        late_end, early_end = waiting.begin(late), waiting.begin(early)
        await until(lambda: cloud.is_stopping(late.job_id))
        cloud.end(late.job_id, JobState.STOPPED)
        assert (await late_end).kind is EndKind.CAPACITY
        assert not cloud.is_stopping(early.job_id)
        await waiting.until_told("job is pending", early)
        cloud.end(early.job_id)
        assert (await early_end).state is JobState.SUCCEEDED
        assert not cloud.is_stopping(early.job_id)

    run(body())


def test_a_job_that_may_not_be_described_harms_no_other(cloud: WatchedCloud) -> None:
    async def body() -> None:
        waiting = Waiting(cloud)
        jobs = [cloud.make() for _ in range(3)]
        ends = [waiting.begin(job) for job in jobs]
        await waiting.until_told("running", *jobs)
        allow = cloud.deny(jobs[0].job_id)
        for job in jobs:
            cloud.end(job.job_id)
        assert [status.state for status in await asyncio.gather(*ends[1:])] == [JobState.SUCCEEDED] * 2
        await waiting.until_told("cannot ask for the state of the job", jobs[0])
        assert any(word in waiting.told[jobs[0].job_id][-1] for word in ("authorized", "PERMISSION", "Authorization"))
        assert not ends[0].done()
        allow()
        assert (await ends[0]).state is JobState.SUCCEEDED

    run(body())
