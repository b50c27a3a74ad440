"""The fault matrix: each call between the start of a task and its end, and each thing that can go wrong with it.

See :mod:`tests.faults.journey`. Nothing may be lost, run twice or be left running.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.engines import Podman, push_base, running_registry
from tests.faults.amazon import amazon
from tests.faults.google import google
from tests.faults.journey import FAULTS, Journey, Place, cases, travel
from tests.faults.microsoft import microsoft

#: One case of so many alone: ``EVERY=10`` for a quick look.
EVERY = int(os.environ.get("EVERY", "1"))
#: ``CLOUDS=aws,azure`` for some of the clouds.
CLOUDS = {"aws": amazon, "gcp": google, "azure": microsoft}
BAD = ("lost", "duplicated", "orphaned")


def main() -> None:
    """Travel, and print one JSON object as the last line."""
    be_quiet()
    found: list[Journey] = []
    chosen = os.environ.get("CLOUDS", ",".join(CLOUDS)).split(",")
    for place, _ in places(*(CLOUDS[name] for name in chosen)):
        found += journeys(place, EVERY)
    bad = {name: count(found, name) for name in BAD}
    print(json.dumps({"name": "faults", "cases": len(found), **bad}))
    sys.exit(any(bad.values()))


def be_quiet() -> None:
    """Let neither Airflow nor the emulated clouds log."""
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
    logging.getLogger("azure").setLevel(logging.WARNING)


def count(journeys: Iterable[Journey], bad: str) -> int:
    """Return how many journeys ended so."""
    return sum(getattr(journey, bad) for journey in journeys)


def journeys(place: Place, every: int) -> list[Journey]:
    """Travel to a place with all faults, and print what came of it."""
    travel(place)  # makes the image
    clean = travel(place)
    assert clean.is_well, clean
    print(f"{place.name}: {len(clean.calls)} calls", flush=True)
    found = []
    for journey in cases(place, clean, every):
        found.append(journey)
        assert journey.fault is not None
        (call, _), fault = journey.fault
        bad = "".join(f", {name}" for name in BAD if getattr(journey, name))
        said = f"{bad}: {journey.said}" if bad else ""
        print(f"  {call}: {fault}: {journey.attempts} attempts{said}", flush=True)
    attempts = dict(sorted(Counter(journey.attempts for journey in found).items()))
    print(f"{place.name}: {len(found)} cases, attempts: {attempts}", flush=True)
    for fault in FAULTS:
        of_fault = [journey for journey in found if journey.fault is not None and journey.fault[1] == fault]
        bad = ", ".join(f"{name} {count(of_fault, name)}" for name in BAD)
        print(f"{place.name}: {fault}: {len(of_fault)} cases, {bad}", flush=True)
    return found


Cloud = Callable[[Path, Podman, str, str], AbstractContextManager[Place]]


def places(*clouds: Cloud) -> Iterator[tuple[Place, str]]:
    """Give one emulated cloud after the other, and a base image."""
    with tempfile.TemporaryDirectory(prefix="stepops-bench-") as name, running_registry(Path(name, "r")) as registry:
        podman, base_image = Podman.new(insecure=(registry,)), push_base(registry)
        try:
            for cloud in clouds:
                folder = Path(name, cloud.__name__)
                folder.mkdir()
                with cloud(folder, podman, registry, base_image) as place:
                    yield place, base_image
        finally:
            podman.remove()


if __name__ == "__main__":
    main()
