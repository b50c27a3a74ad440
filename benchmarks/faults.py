"""The fault matrix: each call between the start of a task and its end, and each thing that can go wrong with it.

See :mod:`tests.faults.journey`. Nothing may be lost, run twice or be left running.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.engines import Podman, push_base, running_registry
from tests.faults.amazon import amazon
from tests.faults.google import google
from tests.faults.journey import FAULTS, Journey, Place, travel

#: Every n-th case alone: ``EVERY=10`` for a quick look.
EVERY = int(os.environ.get("EVERY", "1"))


def main() -> None:
    """Travel, and print one JSON object as the last line."""
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
    bad: Counter[str] = Counter(lost=0, duplicated=0, orphaned=0)
    cases = 0
    for place in _places():
        travel(place)  # makes the image
        clean = travel(place)
        assert clean.is_well, clean
        print(f"{place.name}: {len(clean.calls)} calls")
        journeys = list(_journeys(place, len(clean.calls)))
        cases += len(journeys)
        print(f"{place.name}: {len(journeys)} cases, attempts: {dict(Counter(one.attempts for one in journeys))}")
        for journey in journeys:
            bad.update(lost=journey.lost, duplicated=journey.duplicated, orphaned=journey.orphaned)
    print(json.dumps({"name": "faults", "cases": cases, **bad}))
    sys.exit(any(bad.values()))


def _journeys(place: Place, calls: int) -> Iterator[Journey]:
    cases = [(number, fault) for number in range(calls) for fault in FAULTS]
    for case in cases[::EVERY]:
        journey = travel(place, case)
        if not journey.is_well:
            print(f"{place.name}: {case}: {journey}")
        if journey.fired:  # the last calls of a journey are not always made
            yield journey


def _places() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="stepops-bench-") as name, running_registry(Path(name, "r")) as registry:
        podman, base_image = Podman.new(insecure=(registry,)), push_base(registry)
        try:
            for cloud in (amazon, google):
                folder = Path(name, cloud.__name__)
                folder.mkdir()
                with cloud(folder, podman, registry, base_image) as place:
                    yield place
        finally:
            podman.remove()


if __name__ == "__main__":
    main()
