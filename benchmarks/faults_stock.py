"""The fault matrix of ``make bench NAME=faults`` for Airflow's own SageMakerTrainingOperator(deferrable=True)."""

from __future__ import annotations

import json

from benchmarks.faults import BAD, EVERY, be_quiet, count, journeys, places
from tests.faults.amazon import amazon
from tests.faults.stock import on_stock


def main() -> None:
    """Travel, and print one JSON object as the last line."""
    be_quiet()
    found = [
        journey for place, base_image in places(amazon) for journey in journeys(on_stock(place, base_image), EVERY)
    ]
    print(json.dumps({"name": "faults_stock", "cases": len(found), **{name: count(found, name) for name in BAD}}))


if __name__ == "__main__":
    main()
