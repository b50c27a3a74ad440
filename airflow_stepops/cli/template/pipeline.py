"""How far does a car roll until it stands? A line through a few measurements."""

from typing import Annotated

from airflow_stepops import log_metadata
from airflow_stepops.dag import pipeline, step


@step  # runs in the Airflow worker
def load() -> list[list[float]]:
    """Return speeds (km/h) and stopping distances (m)."""
    return [[10.0, 3.9], [20.0, 8.2], [30.0, 11.8], [40.0, 16.1], [50.0, 20.3]]


# Runs as a job: the stack's default step operator. What it imports beyond the standard library goes into its image:
#     image=Image(requirements=["scikit-learn==1.9.1"])
# and the machine that it needs is asked for by
#     resources=Resources(cpus=4, memory="16GiB", gpus=1)
# (from airflow_stepops.dag import Image, Resources)
@step(step_operator=True, timeout="10m")
def train(measured: list[list[float]], held_back: int) -> tuple[Annotated[dict, "model"], Annotated[float, "error"]]:
    """Fit a line to all measurements but the last ones, and measure its mean error on those."""
    from statistics import fmean, linear_regression

    known, unknown = measured[:-held_back], measured[-held_back:]
    slope, intercept = linear_regression(*zip(*known, strict=True))
    error = fmean(abs(slope * speed + intercept - distance) for speed, distance in unknown)
    log_metadata({"measurements": len(known)})
    return {"slope": round(slope, 3), "intercept": round(intercept, 3)}, round(error, 3)


@step
def report(model: dict, error: float) -> str:
    """Say what was found."""
    return f"distance = {model['slope']} x speed + {model['intercept']}, error {error} m"


@pipeline
def stopping_distance(held_back: int = 2):
    """Arguments of a pipeline become params of the DAG."""
    trained = train(load(), held_back=held_back)
    report(trained["model"], trained["error"])
