"""The watcher: few calls, patience, deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any

import pytest

from airflow_stepops.errors import EndKind, JobRefusedError
from airflow_stepops.jobs.logs import LogFollower
from airflow_stepops.jobs.protocol import JobState, JobStatus
from airflow_stepops.jobs.waiting import WatchedJob
from airflow_stepops.jobs.watcher import Watcher, shared_watcher
from tests.jobs.stand_in import InMemoryService


def watched(job_id: str, **limits: Any) -> WatchedJob:
    return WatchedJob(job_id, submitted_at=time.time(), **limits)


def run(body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await body()

    return asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def quiet(_: str) -> None:
    """Ignore what a watcher says."""


def test_one_job_is_described_and_its_end_is_returned() -> None:
    service = InMemoryService()
    service.set("a", JobState.RUNNING)
    said: list[str] = []

    async def body() -> JobStatus:
        waiting = asyncio.create_task(Watcher(lambda: service).wait(watched("a"), said.append))
        await until(lambda: service.calls["describe"] > 1)
        service.set("a", JobState.SUCCEEDED, exit_code=0)
        return await waiting

    assert run(body).state is JobState.SUCCEEDED
    assert service.calls["changed"] == 0
    assert said == ["job is running", "job is succeeded"]


def test_a_thousand_jobs_cost_one_call_a_look_and_one_describe_for_each_end() -> None:
    service = InMemoryService()
    names = [f"job-{number}" for number in range(1000)]
    for name in names:
        service.set(name, JobState.RUNNING)

    async def body() -> list[JobStatus]:
        watcher = Watcher(lambda: service)
        waiting = [asyncio.create_task(watcher.wait(watched(name), quiet)) for name in names]
        await until(lambda: service.calls["changed"] >= 5)
        looks_before_the_end = service.calls["changed"]
        assert service.calls["describe"] == 0
        for name in names:
            service.set(name, JobState.SUCCEEDED)
        statuses = await asyncio.gather(*waiting)
        assert service.calls["changed"] <= looks_before_the_end + 3
        return statuses

    assert {status.state for status in run(body)} == {JobState.SUCCEEDED}
    assert service.calls["describe"] == 1000


def test_throttling_never_ends_a_job_that_still_runs() -> None:
    service = InMemoryService()
    service.set("a", JobState.RUNNING)
    service.fail("describe", 4)
    said: list[str] = []

    async def body() -> JobStatus:
        waiting = asyncio.create_task(Watcher(lambda: service).wait(watched("a"), said.append))
        await until(lambda: "job is running" in said)
        service.set("a", JobState.SUCCEEDED)
        return await waiting

    assert run(body).state is JobState.SUCCEEDED
    assert said[0] == "cannot ask for the state of the job, trying again: describe: throttled"
    assert said.count(said[0]) == 1


DENIED = JobRefusedError("AccessDenied: not authorized", EndKind.PERMISSION)


class EndsToldOnce(InMemoryService):
    """A service whose sweeps tell each end once."""

    def changed(self, since: float) -> Mapping[str, JobStatus | None]:
        changed = super().changed(since)
        for job_id, status in changed.items():
            if status is not None and status.state.ended:
                del self.changed_at[job_id]
        return changed


def test_of_twenty_jobs_that_have_ended_one_that_may_not_be_described_holds_up_no_other() -> None:
    service = EndsToldOnce()
    names = [f"job-{number}" for number in range(20)]
    for name in names:
        service.set(name, JobState.RUNNING)
    told: dict[str, list[str]] = {name: [] for name in names}

    async def body() -> JobStatus:
        watcher = Watcher(lambda: service)
        ends = [asyncio.create_task(watcher.wait(watched(name), told[name].append)) for name in names]
        await until(lambda: all(told.values()))
        other = asyncio.create_task(watcher.wait(watched("other"), quiet))
        service.broken["describe", names[0]] = DENIED
        for name in names:
            service.set(name, JobState.SUCCEEDED)
        assert {status.state for status in await asyncio.gather(*ends[1:])} == {JobState.SUCCEEDED}
        begun = service.calls["changed"]
        await until(lambda: service.asked[names[0]] >= 3 and service.calls["changed"] > begun + 20)
        assert service.asked[names[0]] < service.calls["changed"] - begun, "it has a back-off of its own"
        assert not ends[0].done()
        del service.broken["describe", names[0]]
        other.cancel()
        return await ends[0]

    service.set("other", JobState.RUNNING)
    assert run(body).state is JobState.SUCCEEDED
    denied = "cannot ask for the state of the job, trying again: AccessDenied: not authorized"
    assert told[names[0]] == ["job is running", denied, "job is succeeded"]
    assert all(told[name] == ["job is running", "job is succeeded"] for name in names[1:])


def test_a_cancel_that_is_refused_does_not_keep_other_jobs_from_being_stopped() -> None:
    service = InMemoryService()
    service.broken["cancel", "a"] = DENIED
    for name in ("a", "b"):
        service.set(name, JobState.PENDING)
    said: list[str] = []

    async def body() -> tuple[JobStatus, JobStatus]:
        watcher, submitted_at = Watcher(lambda: service), time.time() - 1
        first, second = (WatchedJob(name, submitted_at, pending_timeout=0) for name in ("a", "b"))
        refused = asyncio.create_task(watcher.wait(first, said.append))
        await until(lambda: bool(said))
        stopped = await watcher.wait(second, quiet)
        await until(lambda: service.calls["cancel"] >= 4)
        assert not refused.done()
        del service.broken["cancel", "a"]
        return stopped, await refused

    assert [status.kind for status in run(body)] == [EndKind.CAPACITY] * 2
    assert said == [
        "job is pending",
        "job cannot be stopped, though it waited longer than pending_timeout=0 s, trying again: AccessDenied: not "
        "authorized",
        "job is stopped: it waited longer than pending_timeout=0 s",
        "job is stopped",
    ]


def test_a_job_whose_state_cannot_be_read_harms_no_other() -> None:
    service = InMemoryService()
    for name in ("a", "b"):
        service.set(name, JobState.RUNNING)
    service.broken["entry", "a"] = service.broken["describe", "a"] = KeyError("status")
    said: list[str] = []

    async def body() -> JobStatus:
        watcher = Watcher(lambda: service)
        unreadable = asyncio.create_task(watcher.wait(watched("a"), said.append))
        other = asyncio.create_task(watcher.wait(watched("b"), quiet))
        await until(lambda: bool(said))
        service.set("b", JobState.SUCCEEDED)
        await other
        service.broken.clear()
        service.set("a", JobState.SUCCEEDED)
        return await unreadable

    assert run(body).state is JobState.SUCCEEDED
    assert said == ["cannot ask for the state of the job, trying again: KeyError: 'status'", "job is succeeded"]


def test_a_job_of_which_a_sweep_tells_no_state_is_described() -> None:
    service = InMemoryService()
    for name in ("a", "b"):
        service.set(name, JobState.RUNNING)

    async def body() -> JobStatus:
        watcher = Watcher(lambda: service)
        ends = [asyncio.create_task(watcher.wait(watched(name), quiet)) for name in ("a", "b")]
        await until(lambda: service.calls["changed"] >= 1)
        service.broken["entry", "a"] = KeyError("status")
        service.set("a", JobState.FAILED, kind=EndKind.USER_CODE)
        status = await ends[0]
        service.set("b", JobState.SUCCEEDED)
        await ends[1]
        return status

    assert run(body).kind is EndKind.USER_CODE


def test_one_who_cannot_be_told_harms_no_other_and_gets_the_end() -> None:
    service = InMemoryService()
    for name in ("a", "b"):
        service.set(name, JobState.RUNNING)
    said: list[str] = []

    def broken(line: str) -> None:
        raise OSError("the log is closed")

    async def body() -> list[JobStatus]:
        watcher = Watcher(lambda: service)
        ends = [
            asyncio.create_task(watcher.wait(watched(name), notify))
            for name, notify in (("a", broken), ("b", said.append))
        ]
        await until(lambda: bool(said))
        for name in ("a", "b"):
            service.set(name, JobState.SUCCEEDED)
        return await asyncio.gather(*ends)

    assert [status.state for status in run(body)] == [JobState.SUCCEEDED] * 2
    assert said == ["job is running", "job is succeeded"]


def test_a_sweep_that_fails_is_told_to_all_and_tried_again() -> None:
    service = InMemoryService()
    for name in ("a", "b"):
        service.set(name, JobState.RUNNING)
    said: list[str] = []

    async def body() -> list[JobStatus]:
        watcher = Watcher(lambda: service)
        ends = [asyncio.create_task(watcher.wait(watched(name), said.append)) for name in ("a", "b")]
        await until(lambda: len(said) == 2)
        service.fail("changed", 3)
        await until(lambda: len(said) == 6)
        for name in ("a", "b"):
            service.set(name, JobState.SUCCEEDED)
        return await asyncio.gather(*ends)

    assert [status.state for status in run(body)] == [JobState.SUCCEEDED] * 2
    problem = "cannot ask for the state of the job, trying again: changed: throttled"
    assert said[:6] == ["job is running"] * 2 + [problem] * 2 + ["job is running"] * 2


def test_a_second_one_who_waits_for_a_job_gets_its_end_too() -> None:
    service = EndsToldOnce()
    for name in ("a", "b"):
        service.set(name, JobState.RUNNING)

    async def body() -> None:
        watcher = Watcher(lambda: service)
        ends = [asyncio.create_task(watcher.wait(watched(name), quiet)) for name in ("a", "b")]
        await until(lambda: service.calls["changed"] >= 1)
        service.set("a", JobState.SUCCEEDED)
        await ends[0]
        again = asyncio.create_task(watcher.wait(watched("a"), quiet))
        both = asyncio.create_task(watcher.wait(watched("a"), quiet))
        assert (await again).state is (await both).state is JobState.SUCCEEDED
        service.set("b", JobState.SUCCEEDED)
        await ends[1]

    run(body)


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
def test_the_clock_of_the_service_counts(ahead: float) -> None:
    service = InMemoryService()
    service.ahead = ahead
    now = service.now()
    for name in ("late", "early", "ends"):
        service.set(name, JobState.RUNNING, started_at=now - (400 if name == "late" else 0))

    async def body() -> None:
        watcher = Watcher(lambda: service)
        late, early, ends = (
            asyncio.create_task(watcher.wait(WatchedJob(name, now, timeout=300), quiet))
            for name in ("late", "early", "ends")
        )
        assert (await late).kind is EndKind.TIMEOUT
        service.set("ends", JobState.SUCCEEDED)
        assert (await ends).state is JobState.SUCCEEDED
        service.set("early", JobState.SUCCEEDED)
        assert (await early).state is JobState.SUCCEEDED

    run(body)


def test_a_service_that_cannot_be_connected_for_now_is_tried_again() -> None:
    service = InMemoryService()
    service.set("a", JobState.SUCCEEDED)
    attempts: list[int] = []

    def connect() -> InMemoryService:
        attempts.append(1)
        if len(attempts) < 2:
            raise OSError("no route")
        return service

    said: list[str] = []
    assert run(lambda: Watcher(connect).wait(watched("a"), said.append)).state is JobState.SUCCEEDED
    assert "no route" in said[0]


@pytest.mark.parametrize(
    ("state", "limits", "kind"),
    [
        (JobState.RUNNING, {"timeout": 0}, EndKind.TIMEOUT),
        (JobState.PENDING, {"pending_timeout": 0}, EndKind.CAPACITY),
    ],
)
def test_a_deadline_that_the_service_does_not_keep_is_kept_by_the_watcher(
    state: JobState, limits: dict[str, int], kind: EndKind
) -> None:
    service = InMemoryService()
    service.set("a", state, started_at=time.time() - 1)
    job = WatchedJob("a", submitted_at=time.time() - 1, **limits)
    status = run(lambda: Watcher(lambda: service).wait(job, quiet))
    assert (status.state, status.kind) == (JobState.STOPPED, kind)
    assert service.calls["cancel"] == 1


def test_a_service_that_ends_what_runs_too_long_is_not_trusted_with_what_waits_too_long() -> None:
    service = InMemoryService()
    service.enforces_timeout = True
    service.set("runs", JobState.RUNNING, started_at=time.time() - 1)
    service.set("waits", JobState.PENDING)

    async def body() -> JobStatus:
        watcher, submitted_at = Watcher(lambda: service), time.time() - 1
        running = asyncio.create_task(watcher.wait(WatchedJob("runs", submitted_at, timeout=0), quiet))
        waiting = await watcher.wait(WatchedJob("waits", submitted_at, pending_timeout=0), quiet)
        assert not running.done()
        service.set("runs", JobState.SUCCEEDED)
        assert (await running).state is JobState.SUCCEEDED
        return waiting

    assert run(body).kind is EndKind.CAPACITY
    assert service.calls["cancel"] == 1


def test_a_job_that_runs_by_now_is_not_stopped_for_having_waited() -> None:
    service = InMemoryService()
    service.lists_running = False
    for name in "ab":
        service.set(name, JobState.PENDING)

    async def body() -> JobStatus:
        watcher, submitted_at = Watcher(lambda: service), time.time() + 0.2
        job = WatchedJob("a", submitted_at, pending_timeout=0)
        waiting = asyncio.create_task(watcher.wait(job, quiet))
        await until(lambda: service.calls["describe"] >= 1)
        other = asyncio.create_task(watcher.wait(WatchedJob("b", submitted_at), quiet))
        service.set("a", JobState.RUNNING, started_at=time.time())
        seen = service.calls["changed"]
        await until(lambda: time.time() > submitted_at + 0.05 and service.calls["changed"] > seen + 2)
        assert service.calls["cancel"] == 0
        for name in "ab":
            service.set(name, JobState.SUCCEEDED)
        await other
        return await waiting

    assert run(body).state is JobState.SUCCEEDED


class Crowded(InMemoryService):
    """A service that takes several jobs of one name, and whose lists show for long that a stopped job runs."""

    unique_names = False

    def cancel(self, job_id: str) -> None:
        self._count("cancel")


def test_a_second_job_of_an_attempt_is_stopped_and_the_one_that_is_waited_for_goes_on() -> None:
    service = Crowded()
    for job_id, name in (("old", "train"), ("waited", "train"), ("late", "train"), ("x", "other"), ("y", "other")):
        service.set(job_id, JobState.RUNNING, name=name)
    service.set("ended", JobState.FAILED, name="train")
    said: list[str] = []

    async def body() -> JobStatus:
        waiting = asyncio.create_task(Watcher(lambda: service).wait(watched("waited"), said.append))
        await until(lambda: service.calls["changed"] > 4)
        service.set("waited", JobState.SUCCEEDED)
        return await waiting

    assert run(body).state is JobState.SUCCEEDED
    assert service.calls["cancel"] == 2
    assert said == [
        "job old is stopped: it is a second one of this attempt",
        "job late is stopped: it is a second one of this attempt",
        "job is running",
        "job is succeeded",
    ]


def test_a_second_job_that_cannot_be_stopped_keeps_nobody_from_the_end_of_the_first() -> None:
    service = Crowded()
    for job_id, state in (("a", JobState.SUCCEEDED), ("b", JobState.RUNNING)):
        service.set(job_id, state, name="train")
    service.fail("cancel", 1)
    said: list[str] = []
    assert run(lambda: Watcher(lambda: service).wait(watched("a"), said.append)).state is JobState.SUCCEEDED
    assert said == [
        "job b is a second one of this attempt and cannot be stopped, trying again: cancel: throttled",
        "job is succeeded",
    ]


def test_waiting_for_capacity_does_not_count_as_running() -> None:
    service = InMemoryService()
    service.set("a", JobState.PENDING)

    async def body() -> JobStatus:
        job = WatchedJob("a", submitted_at=time.time() - 100, timeout=50)
        waiting = asyncio.create_task(Watcher(lambda: service).wait(job, quiet))
        await until(lambda: service.calls["describe"] >= 3)
        assert service.calls["cancel"] == 0
        service.set("a", JobState.RUNNING, started_at=time.time())
        seen = service.calls["describe"]
        await until(lambda: service.calls["describe"] >= seen + 3)
        assert service.calls["cancel"] == 0
        service.set("a", JobState.SUCCEEDED)
        return await waiting

    assert run(body).state is JobState.SUCCEEDED


def test_a_job_that_the_service_forgot_ends_as_an_infrastructure_failure() -> None:
    service = InMemoryService()
    status = run(lambda: Watcher(lambda: service).wait(watched("gone"), quiet))
    assert status.kind is EndKind.INFRASTRUCTURE
    assert "does not know the job" in status.reason
    assert service.calls["describe"] == 3


def test_a_waiter_that_is_cancelled_leaves_the_job_and_the_others_alone() -> None:
    service = InMemoryService()
    for name in ("a", "b"):
        service.set(name, JobState.RUNNING)

    async def body() -> JobStatus:
        watcher = Watcher(lambda: service)
        leaving = asyncio.create_task(watcher.wait(watched("a"), quiet))
        staying = asyncio.create_task(watcher.wait(watched("b"), quiet))
        await until(lambda: service.calls["changed"] >= 1)
        leaving.cancel()
        service.set("b", JobState.SUCCEEDED)
        return await staying

    assert run(body).id == "b"
    assert service.calls["cancel"] == 0


def test_triggers_of_one_account_share_a_watcher_and_those_of_another_do_not() -> None:
    async def body() -> bool:
        first = shared_watcher("local:here", InMemoryService)
        assert shared_watcher("local:elsewhere", InMemoryService) is not first
        return shared_watcher("local:here", InMemoryService) is first

    assert run(body)


def test_each_waiter_is_told_of_its_own_job_in_its_own_context() -> None:
    service = InMemoryService()
    for name in ("a", "b"):
        service.set(name, JobState.RUNNING)
    task: ContextVar[str] = ContextVar("task")
    said: list[tuple[str, str]] = []

    async def waiter(watcher: Watcher, name: str) -> None:
        task.set(name)
        await watcher.wait(watched(name), lambda line: said.append((task.get(), line)))

    async def body() -> None:
        watcher = Watcher(lambda: service)
        waiting = asyncio.gather(*(asyncio.create_task(waiter(watcher, name)) for name in ("a", "b")))
        await until(lambda: len(said) == 2)
        service.set("a", JobState.SUCCEEDED)
        service.set("b", JobState.FAILED)
        await waiting

    run(body)
    assert sorted(said) == [
        ("a", "job is running"),
        ("a", "job is succeeded"),
        ("b", "job is failed"),
        ("b", "job is running"),
    ]


def test_the_calls_of_a_process_keep_the_distance_that_the_service_asks_for() -> None:
    class Paced(InMemoryService):
        seconds_between_calls = 0.05

    service = Paced()
    for name in ("a", "b", "c"):
        service.set(name, JobState.SUCCEEDED)

    async def body() -> float:
        watcher = Watcher(lambda: service)
        started = time.monotonic()
        await asyncio.gather(*(watcher.wait(watched(name), quiet) for name in ("a", "b", "c")))
        return time.monotonic() - started

    # One sweep and three describes: three distances at the least.
    assert run(body) >= 3 * 0.05


def test_a_log_is_followed_and_drained_without_loss_or_repetition() -> None:
    service = InMemoryService()
    service.lines["a"] = [f"line {number}" for number in range(1200)]
    seen: list[str] = []

    async def body() -> list[str]:
        follower = LogFollower(service, "a", seen.append)
        following = asyncio.create_task(follower.follow())
        await until(lambda: len(seen) >= 1000)
        service.lines["a"] += [f"line {number}" for number in range(1200, 3000)]
        service.fail("logs", 2)
        await follower.finish(following)
        return list(follower.tail)

    tail = run(body)
    assert seen == [f"line {number}" for number in range(3000)]
    assert tail == seen[-20:]


def test_a_log_that_stays_unreadable_is_said_and_does_not_fail_the_step() -> None:
    service = InMemoryService()
    service.fail("logs", 1000)
    seen: list[str] = []

    async def body() -> None:
        follower = LogFollower(service, "a", seen.append)
        await follower.finish(asyncio.create_task(follower.follow()))

    run(body)
    assert seen == ["the log of the job is not complete here: logs: throttled"]
