"""What holds for every job service."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from airflow_stepops.errors import EndKind, JobNotFoundError, JobRefusedError
from airflow_stepops.jobs.protocol import JobState
from tests.clouds.ground import Ground, all_lines, ended, running


def test_a_job_runs_the_image_and_leaves_its_result(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("add", 40, 2)
    begun = time.time()
    submitted = service.submit(request)
    assert not submitted.state.ended
    status = ended(service, submitted.id)
    assert (status.state, status.kind, status.exit_code) == (JobState.SUCCEEDED, None, 0)
    assert ground.value(request) == 42
    assert status.created_at is not None
    assert status.started_at is not None
    assert status.ended_at is not None
    assert begun - 1 < status.created_at <= status.started_at <= status.ended_at < time.time() + 1


def test_submitting_again_returns_the_job_that_is_there(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("wait")
    first = service.submit(request)
    started_at = running(service, first.id).started_at
    again = ground.connect().submit(request)
    assert (again.id, again.started_at) == (first.id, started_at)
    service.cancel(first.id)
    assert ended(service, first.id).state is JobState.STOPPED
    assert service.submit(request).state is JobState.STOPPED


def test_two_launchers_at_once_launch_one_job(ground: Ground) -> None:
    request = ground.request("count", 3)
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(ground.connect().submit(request).id)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4
    assert len(set(ids)) == 1
    service = ground.connect()
    assert ended(service, ids[0]).state is JobState.SUCCEEDED
    assert all_lines(service, ids[0]) == ["line 0", "line 1", "line 2", "no end of line"]


def test_a_job_is_found_by_its_name(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("add", 1, 1)
    assert service.find(request.name) is None
    job_id = service.submit(request).id
    found = ground.connect().find(request.name)
    assert found is not None
    assert found.id == job_id
    ended(service, job_id)


def test_an_unknown_job_is_said_to_be_unknown(ground: Ground) -> None:
    service = ground.connect()
    assert service.find("never-there") is None
    with pytest.raises(JobNotFoundError, match="never-there"):
        service.describe("never-there")
    service.cancel("never-there")


def test_a_step_that_raises_shows_its_traceback(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("fail")
    job_id = service.submit(request).id
    status = ended(service, job_id)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.USER_CODE, 1)
    assert all_lines(service, job_id)[-1] == "ValueError: the rate is negative"


def test_an_exit_without_a_result_has_its_code(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("leave", 7)
    job_id = service.submit(request).id
    status = ended(service, job_id)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.USER_CODE, 7)
    assert status.reason == "exit code 7"


def test_a_killed_step_says_so(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("wait")
    job_id = service.submit(request).id
    running(service, job_id)
    ground.kill(job_id)
    status = ended(service, job_id)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.INFRASTRUCTURE, -9)
    assert status.reason.startswith("killed by signal 9 (SIGKILL)")


def test_a_cancelled_step_cleans_up(ground: Ground) -> None:
    service = ground.connect()
    file = Path(ground.store.root.removeprefix("file://")) / "cleaned-up"
    file.unlink(missing_ok=True)
    request = ground.request("clean_up", str(file))
    job_id = service.submit(request).id
    running(service, job_id)
    asked = time.monotonic()
    service.cancel(job_id)
    service.cancel(job_id)
    assert time.monotonic() - asked < 10  # it does not wait for the end
    status = ended(service, job_id)
    assert (status.state, status.kind) == (JobState.STOPPED, EndKind.CANCELLED)
    assert file.read_text() == "clean"
    assert ground.result(request).status == "stopped"
    service.cancel(job_id)
    assert service.describe(job_id) == status


def test_what_runs_and_what_has_ended_since_is_seen(ground: Ground) -> None:
    service = ground.connect()
    waiting = ground.request("wait")
    waiting_id = service.submit(waiting).id
    running(service, waiting_id)
    since = time.time()
    done = ground.request("add", 1, 2)
    done_id = service.submit(done).id
    ended(service, done_id)
    changed = ground.connect().changed(since)
    assert changed[done_id].state.ended
    assert changed[waiting_id].state is JobState.RUNNING
    service.cancel(waiting_id)
    ended(service, waiting_id)
    assert service.changed(since)[waiting_id].state.ended


def test_no_line_is_lost_or_repeated_while_the_job_prints(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("count", 20_000)
    job_id = service.submit(request).id
    lines: list[str] = []
    cursor = ""
    while not service.describe(job_id).state.ended:
        chunk = service.logs(job_id, cursor, 777)
        lines += chunk.lines
        cursor = chunk.cursor
    lines += all_lines(service, job_id, cursor)
    assert lines == [*(f"line {number}" for number in range(20_000)), "no end of line"]


def test_another_process_goes_on_at_the_cursor(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("count", 10)
    job_id = service.submit(request).id
    ended(service, job_id)
    lines: list[str] = []
    cursor = ""
    while len(lines) < 11:
        chunk = ground.connect().logs(job_id, cursor, 2)
        assert 0 < len(chunk.lines) <= 2
        lines += chunk.lines
        cursor = chunk.cursor
    assert lines == [*(f"line {number}" for number in range(10)), "no end of line"]
    assert not ground.connect().logs(job_id, cursor, 2).lines


def test_a_very_long_line_comes_in_pieces(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("long_line", 150_000)
    job_id = service.submit(request).id
    ended(service, job_id)
    lines = all_lines(service, job_id)
    assert len(lines) > 2
    assert "".join(lines) == "é" * 150_000 + "next"
    assert lines[-1] == "next"
    assert max(len(line.encode()) for line in lines) <= 1 << 16


def test_a_job_without_a_log_has_no_lines(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("add", 1, 1)
    job_id = service.submit(request).id
    ended(service, job_id)
    chunk = service.logs(job_id)
    assert (list(chunk.lines), chunk.more) == ([], False)


def test_a_secret_of_the_launcher_reaches_the_step_alone(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_TOKEN", "hunter2")
    service, request = ground.connect(), ground.request("secret", secrets={"TOKEN": "env:OUR_TOKEN"})
    job_id = service.submit(request).id
    assert ended(service, job_id).state is JobState.SUCCEEDED
    assert ground.value(request) == ["hunter2", ["TOKEN"]]
    assert b"hunter2" not in ground.store.get(request.spec_uri)


def test_a_secret_that_the_launcher_lacks_is_named_before_anything_runs(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("secret", secrets={"TOKEN": "env:NOT_THERE"})
    with pytest.raises(JobRefusedError, match="NOT_THERE is not set where the step is launched"):
        service.submit(request)
    assert service.find(request.name) is None


def test_a_job_gets_the_variables_of_its_request(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("variables", environment={"AWS_ENDPOINT": "http://store:9000"})
    job_id = service.submit(request).id
    ended(service, job_id)
    variables = ground.value(request)
    assert variables["AWS_ENDPOINT"] == "http://store:9000"
    assert not [name for name in variables if name.startswith("AIRFLOW")]
    assert [name for name in variables if name.startswith("STEPOPS")] == ["STEPOPS_SPEC"]


def test_resources_are_accepted(ground: Ground) -> None:
    service, request = ground.connect(), ground.request("add", 1, 1, resources={"cpus": 0.5, "memory": "512MiB"})
    job_id = service.submit(request).id
    assert ended(service, job_id).state is JobState.SUCCEEDED
