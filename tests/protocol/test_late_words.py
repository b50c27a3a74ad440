"""What a trigger and a resumed task do when others have spoken since: found by exploration, told one by one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Iterator
from typing import Any

import pytest

from airflow_stepops.jobs.ledger import LedgerEntry
from tests.protocol.actors import attempt, name_of_job, program
from tests.protocol.doors import ROOT, Jobs, Objects, simulated
from tests.protocol.programs import AWAY, EXISTS, Call, Ended

DIRECTORY = f"{ROOT}/runs/churn/manual/train/-1/instance"


@pytest.fixture(autouse=True)
def doors() -> Iterator[None]:
    """Let the code reach nothing but the simulation."""
    with simulated():
        yield


def told(number: int, instance: str = "instance") -> dict[str, Any]:
    """Return what an attempt with a job of its own tells in XCom."""
    who = dataclasses.replace(attempt(number), instance=instance)
    job = name_of_job(number)
    component = Jobs(name="there").document()
    entry = LedgerEntry(who, f"{DIRECTORY}/attempt-{number}", who, "work", component, job, job_id=job)
    return {"job_id": job, "entry": dataclasses.asdict(entry), "artifact_store": Objects().document()}


def calls(*key: Any, answers: list[Hashable]) -> list[str]:
    """Run a program with answers; return the names of the calls, and of one more that it would make."""
    running, node, made = program(key), 0, []
    for answer in answers:
        call = running.then(node)
        assert isinstance(call, Call), call
        made.append(call.name)
        node = running.answered(node, answer)
    then = running.then(node)
    assert not (isinstance(then, Ended) and then.crash), then
    return [*made, then.name] if isinstance(then, Call) else made


def kill(number: int, *answers: Hashable) -> list[str]:
    """Tell the trigger of an attempt that it is killed."""
    return calls("kill", number, json.dumps(told(number)["entry"]), answers=list(answers))


@pytest.mark.parametrize(
    ("facts", "waits"),
    [
        (told(2), True),
        (told(1), True),  # a worker that was thought to be dead has spoken last
        ({"ended_at": 1.0}, True),  # the same, and it had been resumed
        (told(3), False),
        (told(2, "made again") | {"job_id": "another"}, False),
        (None, False),
    ],
)
def test_what_an_earlier_try_tells_late_does_not_stop_a_job(facts: dict[str, Any] | None, waits: bool) -> None:
    made = kill(2, "deferred", json.dumps(facts))
    assert made == ["state", "pull"] if waits else ["state", "pull", "put_if_absent"]


@pytest.mark.parametrize(
    ("state", "then"), [("running", []), ("up_for_retry", []), ("failed", ["cancel"]), (None, ["cancel"])]
)
def test_a_job_is_stopped_without_a_claim_only_when_no_attempt_can_go_on_with_it(
    state: str | None, then: list[str]
) -> None:
    assert kill(1, state, AWAY, state) == ["state", "put_if_absent", "state", *then]


def end_of_deferral(*answers: Hashable) -> list[str]:
    """Let the deferral of the first attempt time out."""
    entry = json.dumps(told(1)["entry"])
    return calls("resume", 1, entry, "Trigger timeout", answers=list(answers))


def test_a_deferral_that_timed_out_stops_its_job() -> None:
    assert end_of_deferral(json.dumps(told(1)), "done") == ["pull", "put_if_absent", "cancel"]


@pytest.mark.parametrize("facts", [None, {"where": "there"}, told(2)])
def test_a_deferral_that_timed_out_leaves_the_job_of_another_attempt_alone(facts: dict[str, Any] | None) -> None:
    assert end_of_deferral(json.dumps(facts), "done") == ["pull", "fail"]


def test_a_deferral_that_timed_out_leaves_a_job_alone_that_a_later_attempt_goes_on_with() -> None:
    made = end_of_deferral(json.dumps(told(1)), EXISTS, b"attempt-2 ti-2", "done")
    assert made == ["pull", "put_if_absent", "get", "fail"]
