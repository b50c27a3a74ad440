"""Late arrivals on Google Cloud: read in the worker, train on a spot machine of Vertex AI, score on another machine.

The stack ``gcp`` is in ``stepops.yaml`` beside this file.
"""

from __future__ import annotations

from late_arrivals import evaluate, load, train

from airflow_stepops.dag import Resources, pipeline


@pipeline(stack="gcp", tags=["stepops", "example", "gcp"], doc_md=__doc__)
def gcp_late_arrivals(airport: str = "JFK", learning_rate: float = 0.1) -> None:
    """One model, one machine."""
    flights = load(airport)
    model = train.override(
        resources=Resources(cpus=2, memory="8GiB", spot=True),
        settings={"labels": {"project": "late-arrivals"}, "boot_disk_type": "pd-standard"},
    )(flights, learning_rate)
    evaluate(flights, model)
