"""What is tried on every real cloud. The suites of the clouds import it, and bring the fixture ``project``."""

from __future__ import annotations

import time

import pytest

from tests.live.project import Project

#: Some clouds show lines of a log only after a while.
_LATE_LOG_SECONDS = 120


def test_the_stack_is_well(project: Project) -> None:
    code, printed = project.call("doctor", "--stack", "live")
    assert code == 0, printed


@pytest.mark.parametrize("stack", ["live", "other"])
def test_a_job_ends_well(project: Project, stack: str) -> None:
    code, printed = project.on(stack).run("live_count")
    assert code == 0, printed
    step = project.on(stack).last("live_count", "count")
    assert step.load() == sum(range(10_000))
    assert step.metadata["numbers"] == 10_000
    deadline, log = time.monotonic() + _LATE_LOG_SECONDS, ""
    while "10000 numbers" not in log:
        assert time.monotonic() < deadline, log
        log = project.on(stack).call("logs", "live_count", step.run_id, "count", "--stack", stack)[1]


def test_a_step_that_raises_says_so(project: Project) -> None:
    code, printed = project.run("live_fail")
    assert code == 1, printed
    error = project.last("live_fail", "fail").error
    assert error is not None
    assert (error.type, error.message) == ("ValueError", "as it should")


def test_a_job_that_is_cancelled_ends(project: Project) -> None:
    running = project.start("run", "pipelines.py", "--dag-id", "live_wait", "--stack", project.stack)
    try:
        job = project.running_job("live_wait")
        code, printed = project.call("cancel", "live_wait", job["run_id"], "--stack", project.stack)
        assert code == 0, printed
        assert running.wait(600) == 1
    finally:
        running.kill()
        running.communicate()
    assert project.last("live_wait", "wait").state == "stopped"
