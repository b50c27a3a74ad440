"""What Airflow asks of a provider package."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description (schema: ``airflow/provider_info.schema.json``)."""
    return {
        "package-name": "airflow-stepops",
        "name": "StepOps",
        "description": "Run one step of a DAG on a managed ML service.",
    }
