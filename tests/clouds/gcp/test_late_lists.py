"""One job for each attempt on a Vertex AI whose lists are behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from airflow_stepops.clouds.gcp import service as service_module
from airflow_stepops.clouds.gcp.logs import Pace
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.protocol import JobRequest, JobState
from airflow_stepops.jobs.watcher import WatchedJob, Watcher
from tests.clouds.gcp.emulated import Answer, Call, EmulatedGcp, error
from tests.clouds.gcp.ground import OnVertex, submit_thrice_at_once
from tests.clouds.gcp.vertex import Vertex
from tests.clouds.ground import ended, running, wait_for


@pytest.fixture(autouse=True)
def _late(emulated: Vertex, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lists are behind by less than a launcher looks for a job."""
    pace = Pace(seconds=0.0)
    monkeypatch.setattr(service_module, "_pace", lambda project: pace)
    monkeypatch.setattr(service_module, "LOOK_AGAIN_AFTER", (0.2, 0.4, 0.8, 1.6))
    monkeypatch.setattr(service_module.VertexJobService, "poll_seconds", 0.2)
    emulated.lag = 1.5
    yield
    emulated.lag = 0.0


def test_the_answer_to_create_is_lost_and_there_is_one_job(ground: OnVertex, emulated: Vertex) -> None:
    service, request = ground.connect(), ground.request("add", 40, 2)
    emulated.lost = 1
    status = patiently(service.submit)(request)
    assert [job.id for job in emulated.labelled(request.name)] == [status.id]
    assert ended(service, status.id).state is JobState.SUCCEEDED
    assert ground.value(request) == 42


@pytest.mark.parametrize("lost", [0, 1])
def test_calls_that_break_after_the_create_do_not_make_a_second_job(
    ground: OnVertex, gcp: EmulatedGcp, emulated: Vertex, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    request = ground.request("add", 40, 2)
    broken: list[Call] = []

    def breaking(call: Call) -> Answer:
        if emulated.labelled(request.name) and len(broken) < 2:
            broken.append(call)
            return error(503, "UNAVAILABLE", "The service is currently unavailable.")
        return emulated(call)

    monkeypatch.setitem(gcp.apis, "aiplatform", breaking)
    emulated.lost = lost
    status = patiently(ground.connect().submit)(request)
    assert [job.id for job in emulated.labelled(request.name)] == [status.id]
    wait_for(lambda: patiently(ground.connect().describe)(status.id).state.ended, "the end")
    assert ground.value(request) == 42
    assert len(broken) == 2


def test_a_create_that_was_not_taken_is_made_again_at_once(
    ground: OnVertex, gcp: EmulatedGcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "LOOK_AGAIN_AFTER", (600.0,))
    throttled = gcp.fail("aiplatform", "customJobs$", 429, "RESOURCE_EXHAUSTED", method="POST", times=1)
    service = ground.connect()
    status = patiently(service.submit)(ground.request("add", 1, 1))
    assert throttled.times == 0
    ended(service, status.id)


def test_a_job_that_the_list_does_not_show_yet_is_found_by_who_can_wait(ground: OnVertex) -> None:
    request = ground.request("add", 1, 1)
    launched = ground.connect().submit(request)
    after = ground.connect()
    assert after.find_now(request.name) is None
    found = after.find(request.name)
    assert found is not None
    assert found.id == launched.id
    ended(after, launched.id)


def test_who_launches_a_job_itself_need_not_wait_to_find_it(ground: OnVertex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "LOOK_AGAIN_AFTER", (600.0,))
    service, request = ground.connect(), ground.request("add", 1, 1)
    launched = service.submit(request)
    assert service.find(request.name) is None  # as a signal's handler asks in the middle of a launch
    ended(service, launched.id)


def test_of_launchers_that_have_not_seen_each_other_s_jobs_the_one_that_is_waited_for_is_left(
    ground: OnVertex, emulated: Vertex
) -> None:
    request = ground.request("wait")
    first, second, waited_for = launch_three(ground, emulated, request)
    service = ground.connect()
    running(service, waited_for)
    said: list[str] = []

    async def watch() -> None:
        watcher = Watcher(ground.connect)
        waiting = asyncio.create_task(watcher.wait(WatchedJob(waited_for, time.time()), said.append))
        async with asyncio.timeout(60):
            while not all(emulated.jobs[job_id].ended for job_id in (first, second)):
                await asyncio.sleep(0.1)
        waiting.cancel()

    asyncio.run(watch())
    stopped = [line for line in said if "stopped" in line]
    assert sorted(stopped) == sorted(
        f"job {job_id} is stopped: it is a second one of this attempt" for job_id in (first, second)
    )
    assert service.describe(waited_for).state is JobState.RUNNING
    found = ground.connect().find(request.name)  # as the next attempt does, though an older one was stopped just now
    assert found is not None
    assert found.id == waited_for
    service.cancel(waited_for)
    ended(service, waited_for)


def launch_three(ground: OnVertex, emulated: Vertex, request: JobRequest) -> list[str]:
    """Launch a job three times at once, and return the ids of the three jobs, the oldest first."""
    ids = submit_thrice_at_once(ground, emulated, request)
    assert len(set(ids)) == 3
    return sorted(ids, key=lambda job_id: emulated.jobs[job_id].shown.create_time)
