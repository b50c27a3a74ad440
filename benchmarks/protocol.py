"""The protocol of ledger and claims, in every order of its calls that a scenario allows.

See :mod:`tests.protocol`. The same is done with a protocol whose claims are not put-if-absent, which must be caught.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

import tests.airflow_env  # noqa: F401 - before anything imports Airflow
from tests.protocol.broken import claims_without_put_if_absent
from tests.protocol.doors import simulated
from tests.protocol.explore import Explored, explore
from tests.protocol.moves import Scenario
from tests.protocol.scenarios import QUICK, THOROUGH

LEAST = 100_000


def main() -> None:
    """Explore, and print one JSON object as the last line."""
    with simulated():
        found = _explore((*QUICK, *THOROUGH))
        print("with claims that are not put-if-absent:")
        with claims_without_put_if_absent():
            broken = _explore([dataclasses.replace(scenario, programs={}) for scenario in QUICK])
    violations = [violation for explored in found for violation in explored.violations]
    caught = [violation for explored in broken for violation in explored.violations]
    for violation in (*violations[:3], *caught[:1]):
        print(violation)
    figures = {
        "name": "protocol",
        "interleavings": sum(explored.interleavings for explored in found),
        "violations": len(violations),
        "covered_interleavings": sum(explored.covered for explored in found),
        "worlds": sum(explored.worlds for explored in found),
        "broken_variant_violations": len(caught),
    }
    print(json.dumps(figures))
    sys.exit(bool(violations) or not caught or figures["interleavings"] < LEAST)


def _explore(scenarios: Sequence[Scenario]) -> list[Explored]:
    found = []
    for scenario in scenarios:
        explored = explore(scenario)
        print(
            f"{scenario.name}: {explored.interleavings} interleavings of at most {explored.depth} moves through "
            f"{explored.worlds} worlds, which cover {explored.covered:.3g}; {explored.runs} runs of the code; "
            f"the orphan sweep stops a job in {explored.swept}; {len(explored.violations)} violations",
            flush=True,
        )
        found.append(explored)
    return found


if __name__ == "__main__":
    main()
