"""Late arrivals on Azure: read in the worker, train on a low-priority machine of Azure ML, score on another one.

The stack ``azure`` is in ``stepops.yaml`` beside this file.
"""

from __future__ import annotations

from late_arrivals import evaluate, load, train

from airflow_stepops.dag import Resources, pipeline


@pipeline(stack="azure", tags=["stepops", "example", "azure"], doc_md=__doc__)
def azure_late_arrivals(airport: str = "JFK", learning_rate: float = 0.1) -> None:
    """One model, one machine."""
    flights = load(airport)
    model = train.override(
        resources=Resources(cpus=2, memory="8GiB", spot=True),
        settings={"tags": {"project": "late-arrivals"}},
    )(flights, learning_rate)
    evaluate(flights, model)
