"""Whatever is slow, dies or is lost, one job of a task is left, and none that somebody waits for is stopped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.protocol.broken import claims_without_put_if_absent
from tests.protocol.doors import simulated
from tests.protocol.explore import explore
from tests.protocol.moves import Scenario
from tests.protocol.scenarios import QUICK
from tests.protocol.world import Budget, World


@pytest.fixture(autouse=True)
def doors() -> Iterator[None]:
    """Let the code reach nothing but the simulation."""
    with simulated():
        yield


@pytest.mark.parametrize("scenario", QUICK, ids=lambda scenario: scenario.name)
def test_no_interleaving_breaks_a_promise(scenario: Scenario) -> None:
    found = explore(scenario)
    assert not found.violations, "\n".join(map(str, found.violations[:3]))
    assert found.interleavings > 100


def test_a_claim_that_is_no_put_if_absent_is_caught() -> None:
    with claims_without_put_if_absent():
        found = explore(Scenario("broken", Budget(zombies=1, switches=1), signals=True))
    shortest = found.violations[0]
    assert shortest.promise == "attempt 2 waits for a job that worker 1 has stopped"
    claims = [label for label in shortest.trace if "claim.json" in label and "attempt-1/" in label]
    assert claims == [
        "worker 1 store.get(attempt-1/claim.json) → there is nothing",
        "worker 2 store.get(attempt-1/claim.json) → there is nothing",
        "worker 2 store.put(attempt-1/claim.json, attempt-2 ti-2) → done",
        "worker 1 store.put(attempt-1/claim.json, cancel) → done",
    ]


def test_what_is_covered_is_what_there_is() -> None:
    scenario = Scenario("small", Budget(losses=1, results=1))
    found = explore(scenario)
    assert found.covered == _count(scenario, scenario.start())
    assert found.interleavings < found.covered


def _count(scenario: Scenario, world: World) -> int:
    """Count the interleavings one by one."""
    return sum(_count(scenario, move.world) for move in scenario.moves(world)) or 1
