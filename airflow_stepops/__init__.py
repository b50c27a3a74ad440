"""Run one step of an Airflow DAG on a managed ML service.

DAG files import from :mod:`airflow_stepops.dag`; code inside a step imports from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_stepops.runtime.checkpoints import checkpoint_dir
    from airflow_stepops.runtime.cluster import cluster
    from airflow_stepops.runtime.metadata import log_metadata

__version__ = "0.1.0"
__all__ = ["__version__", "checkpoint_dir", "cluster", "log_metadata"]


def __getattr__(name: str) -> Any:
    if name == "log_metadata":
        from airflow_stepops.runtime.metadata import log_metadata

        return log_metadata
    if name == "checkpoint_dir":
        from airflow_stepops.runtime.checkpoints import checkpoint_dir

        return checkpoint_dir
    if name == "cluster":
        from airflow_stepops.runtime.cluster import cluster

        return cluster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
