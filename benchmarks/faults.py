"""The fault matrix: each call between the start of a task and its end, and each thing that can go wrong with it.

See :mod:`tests.faults.journey`. Nothing may be lost, run twice or be left running.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
from collections import Counter

from benchmarks.lanes import BAD, Case, Cloud, chosen_clouds, count, ending, travel_all
from tests.faults.journey import FAULTS, Journey

#: One case of so many alone: ``EVERY=10`` for a quick look.
EVERY = int(os.environ.get("EVERY", "1"))


def main() -> None:
    """Travel, and print one JSON object as the last line."""
    found = [journey for name, cloud in chosen_clouds().items() for journey in journeys(name, cloud)]
    counted = count(found)
    print(json.dumps({"name": "faults", **counted}))
    sys.exit(any(counted[bad] for bad in BAD))


def journeys(name: str, cloud: Cloud) -> list[Journey]:
    """Travel to a place with each fault at each call, and print what came of it."""
    clean, *all_found = travel_all(cloud, _matrix)
    found = [journey for journey in all_found if journey.fired]  # a job that ends sooner is looked at less often
    print(f"{name}: {len(clean.calls)} calls", flush=True)
    for journey in found:
        ((where, fault),) = journey.faults
        print(f"  {where}: {fault}: {ending(journey)}", flush=True)
    attempts = dict(sorted(Counter(journey.attempts for journey in found).items()))
    print(f"{name}: {len(found)} cases, attempts: {attempts}", flush=True)
    for fault in FAULTS:
        print(f"{name}: {fault}: {count(journey for journey in found if journey.faults[0][1] == fault)}", flush=True)
    return found


def _matrix(clean: Journey) -> list[Case]:
    """Return the cases, or one of so many, the same ones each time."""
    planned: list[Case] = [((spot, fault),) for spot in clean.spots for fault in FAULTS]
    chosen = random.Random(0).sample(range(len(planned)), math.ceil(len(planned) / EVERY))
    return [planned[number] for number in sorted(chosen)]


if __name__ == "__main__":
    main()
