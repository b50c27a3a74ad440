"""Steps in an ordinary DAG, beside tasks that know nothing of them.

Finds the weekdays on which a sensor reads far from its usual value. ``@step`` and ``@task.step`` are the same thing:
the second is Airflow's own spelling, and needs no import. Needs nothing besides Airflow in the worker.
"""

from __future__ import annotations

import statistics
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import dag, task, task_group

from airflow_stepops import log_metadata
from airflow_stepops.dag import Resources, step

SENSORS = ["north", "south", "west"]


@task
def readings(sensor: str) -> list[float]:
    """Return a week of readings; stands for a query to a database."""
    base = 10.0 + len(sensor)
    return [base + 0.1 * day + (7.5 if (day + len(sensor)) % 7 == 3 else 0.0) for day in range(7)]


@step(step_operator=True, timeout="10m")
def outliers(values: list[float], tolerance: float) -> list[int]:
    """Return the days on which a reading is more than ``tolerance`` away from the median."""
    middle = statistics.median(values)
    found = [day for day, value in enumerate(values) if abs(value - middle) > tolerance]
    log_metadata({"median": middle, "outliers": len(found)})
    return found


@task.step(step_operator=True, environment={"UNIT": "days"})
def count(days: list[list[int]]) -> dict[str, Any]:
    """Count the outliers of all sensors."""
    import os

    return {"outliers": sum(len(found) for found in days), "unit": os.environ["UNIT"]}


@task
def tell(result: dict[str, Any]) -> None:
    """Print what was found, in an ordinary task."""
    print(f"{result['outliers']} {result['unit']} with odd readings")


@dag(schedule=None, catchup=False, tags=["stepops", "example"], doc_md=__doc__)
def taskflow_mix() -> None:
    """Ordinary operators, a task group, a mapped step and an overridden one."""

    @task_group
    def analyse(sensors: list[str]) -> Any:
        values = readings.expand(sensor=sensors)
        return outliers.partial(tolerance=5.0).expand(values=values)

    start = EmptyOperator(task_id="start")
    odd_days = analyse(SENSORS)
    start >> odd_days
    again = outliers.override(name="outliers_of_a_constant", resources=Resources(cpus=1))([1.0] * 7, 0.5)
    total = count(odd_days)
    again >> total
    tell(total)


taskflow_mix()
