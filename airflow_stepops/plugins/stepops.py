"""The Airflow plugin of this package."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from airflow_stepops.operators.references import allow_references

# Airflow loads plugins in every task's process before the task reads XCom, also where no step is in the DAG.
allow_references()


class StepopsPlugin(AirflowPlugin):
    """Registers what Airflow learns from plugins."""

    name = "stepops"
