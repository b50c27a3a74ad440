"""Pairs of faults: two things go wrong in one journey, at random calls, the same ones each time.

See :mod:`tests.faults.journey`. Nothing may be lost, run twice or be left running.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from collections.abc import Iterable, Iterator

from benchmarks.lanes import BAD, Case, Cloud, chosen_clouds, count, ending, travel_all
from tests.faults.journey import FAULTS, KILLS, Journey

#: Cases for each cloud.
CASES = int(os.environ.get("CASES", "500"))
#: One case alone, as it is printed: ``CLOUDS=aws CASE='[[["GET /#", 0], "hang"], [3, "503"]]'``.
CASE = os.environ.get("CASE", "")
#: How many of the calls that are made again and again may be the first to go wrong.
_LOOKS = 3


def main() -> None:
    """Travel, and print one JSON object as the last line."""
    counted = {name: count(_journeys(name, cloud)) for name, cloud in chosen_clouds().items()}
    print(json.dumps({"name": "fault_pairs", **counted}))
    sys.exit(any(of_cloud[bad] for of_cloud in counted.values() for bad in BAD))


def _journeys(name: str, cloud: Cloud) -> Iterator[Journey]:
    """Travel to a place until enough journeys had both of their faults, and print what came of them."""
    all_found = itertools.islice(travel_all(cloud, _planned), 1, None)
    found = (journey for journey in all_found if journey.fired)
    for number, journey in enumerate(itertools.islice(found, CASES), 1):
        print(f"{name} {number}: {json.dumps(journey.faults)}: {ending(journey)}", flush=True)
        yield journey


def _planned(clean: Journey) -> Iterable[Case]:
    return [_parsed(CASE)] if CASE else _pairs(clean)


def _pairs(clean: Journey) -> list[Case]:
    """Return more pairs than are wanted: in some the journey ends before the second fault.

    Each call is as likely as any other, however often the job was looked at.
    """
    chance, pairs = random.Random(0), []
    kinds = list(dict.fromkeys(clean.calls))
    for _ in range(2 * CASES):
        call, first, second = chance.choice(kinds), chance.choice(FAULTS), chance.choice(FAULTS)
        spot = (call, chance.randrange(min(_LOOKS, clean.calls.count(call))))
        # After a kill there is a whole attempt to come.
        left = len(clean.spots) - (0 if first in KILLS else clean.spots.index(spot))
        pairs.append(((spot, first), (chance.randint(1, left), second)))
    return pairs


def _parsed(case: str) -> Case:
    return tuple((where if isinstance(where, int) else tuple(where), fault) for where, fault in json.loads(case))


if __name__ == "__main__":
    main()
