"""What tests ask of Airflow that is elsewhere in some of the supported versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG


def dag_bag(folder: Path) -> DagBag:
    """Parse a DAG folder as Airflow's DAG processor does."""
    try:
        from airflow.dag_processing.dagbag import BundleDagBag
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import BundleDagBag

        return BundleDagBag(dag_folder=folder, bundle_path=folder)
    return BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")


def serialized(dag: DAG) -> dict[str, Any]:
    """Return what Airflow keeps of a DAG."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization
    except ImportError:  # before Airflow 3.2
        from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization
    return DagSerialization.to_dict(dag)


def deserialized(value: Any) -> Any:
    """Return a value of an XCom as a task would read it."""
    from airflow_stepops.operators.versions import serde

    return serde.deserialize(value)
