"""Late arrivals on Amazon: read in the worker, train on a spot machine of SageMaker, score in a processing job.

The stack ``aws`` is in ``stepops.yaml`` beside this file.
"""

from __future__ import annotations

from late_arrivals import evaluate, load, train

from airflow_stepops.dag import Resources, pipeline


@pipeline(stack="aws", tags=["stepops", "example", "aws"], doc_md=__doc__)
def aws_late_arrivals(airport: str = "JFK", learning_rate: float = 0.1) -> None:
    """One model, one machine."""
    flights = load(airport)
    model = train.override(
        resources=Resources(cpus=2, memory="8GiB", spot=True),
        settings={"metrics": {"train:accuracy": "train:accuracy=([0-9.]+)"}, "tags": {"project": "late-arrivals"}},
    )(flights, learning_rate)
    evaluate.override(step_operator="processing")(flights, model)
