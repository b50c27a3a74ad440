"""What DAG files import: ``from airflow_stepops.dag import Image, Resources, pipeline, step``.

The module has "dag" in its name because Airflow looks only into files that mention both "airflow" and "dag".
Inside a step's image a lighter module of the same name stands in for it.
"""

from __future__ import annotations

from airflow_stepops.decorators.maintenance import maintenance
from airflow_stepops.decorators.pipeline import pipeline
from airflow_stepops.decorators.retries import RetryByKind
from airflow_stepops.decorators.step import step
from airflow_stepops.options import Image, Resources

__all__ = ["Image", "Resources", "RetryByKind", "maintenance", "pipeline", "step"]
