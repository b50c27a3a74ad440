"""The fault matrix of ``make bench NAME=faults`` for Airflow's own SageMakerTrainingOperator(deferrable=True)."""

from __future__ import annotations

import json

from benchmarks.faults import journeys
from benchmarks.lanes import count
from tests.faults.stock import stock


def main() -> None:
    """Travel, and print one JSON object as the last line."""
    print(json.dumps({"name": "faults_stock", **count(journeys("stock", stock))}))


if __name__ == "__main__":
    main()
