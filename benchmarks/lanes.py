"""Journeys side by side: several processes, each with an emulated cloud of its own, since journeys mostly wait."""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.util import Finalize
from pathlib import Path

from tests.engines import Podman, push_base, running_registry
from tests.faults.amazon import amazon
from tests.faults.google import google
from tests.faults.journey import Journey, Place, Planned, travel
from tests.faults.microsoft import microsoft

#: How many journeys are made at once.
LANES = int(os.environ.get("LANES", "3"))
#: ``CLOUDS=aws,azure`` for some of the clouds.
CLOUDS = {"aws": amazon, "gcp": google, "azure": microsoft}
BAD = ("lost", "duplicated", "orphaned")

#: Folder, Podman, registry and base image → a place to travel to.
Cloud = Callable[[Path, Podman, str, str], AbstractContextManager[Place]]
#: Faults of one journey, in order.
Case = tuple[Planned, ...]

_place: Place


def chosen_clouds() -> dict[str, Cloud]:
    """Return the clouds to travel to."""
    return {name: CLOUDS[name] for name in os.environ.get("CLOUDS", ",".join(CLOUDS)).split(",")}


def travel_all(cloud: Cloud, plan: Callable[[Journey], Iterable[Case]]) -> Iterator[Journey]:
    """Travel with each case; give the journeys in the order of their cases.

    :param plan: returns the cases, of a journey without faults.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(LANES, context, _open, (cloud,)) as lanes:
        first, *_ = [lanes.submit(_travel, ()) for _ in range(LANES)]  # each begins a lane
        clean = first.result()
        assert clean.is_well, clean
        try:
            yield clean
            yield from lanes.map(_travel, plan(clean))
        finally:
            lanes.shutdown(cancel_futures=True)


def count(journeys: Iterable[Journey]) -> dict[str, int]:
    """Return how many journeys there are, and how many ended in each way that is bad."""
    found = list(journeys)
    return {"cases": len(found), **{bad: sum(getattr(journey, bad) for journey in found) for bad in BAD}}


def ending(journey: Journey) -> str:
    """Return for people how a journey ended, and all its calls if it did not end well."""
    bad = "".join(f", {name}" for name in BAD if getattr(journey, name))
    return f"{journey.attempts} attempts" + (f"{bad}: {journey.said}; {list(journey.calls)}" if bad else "")


def _open(cloud: Cloud) -> None:
    """Make the place of this process, and its image."""
    global _place
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
    logging.getLogger("azure").setLevel(logging.WARNING)
    opened = ExitStack()
    Finalize(None, opened.close, exitpriority=1)
    _place = opened.enter_context(_made(cloud))
    travel(_place)


def _travel(case: Case) -> Journey:
    return travel(_place, *case)


@contextmanager
def _made(cloud: Cloud) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="stepops-bench-") as name, running_registry(Path(name, "r")) as registry:
        podman = Podman.new(insecure=(registry,))
        folder = Path(name, cloud.__name__)
        folder.mkdir()
        try:
            with cloud(folder, podman, registry, push_base(registry)) as place:
                yield place
        finally:
            podman.remove()
