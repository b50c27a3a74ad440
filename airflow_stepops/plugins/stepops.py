"""The Airflow plugin of this package."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class StepopsPlugin(AirflowPlugin):
    """Registers what Airflow learns from plugins."""

    name = "stepops"
