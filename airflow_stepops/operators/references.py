"""Lets tasks of this installation receive artifact references through XCom."""

from __future__ import annotations

from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.operators.versions import serde


def allow_references() -> None:
    """Allow Airflow to rebuild references from XCom in this process: it rebuilds only classes that are allowed."""
    if hasattr(serde, "allow_class"):
        serde.allow_class(ArtifactReference)
    else:  # before Airflow 3.3, which made this public
        serde._extra_allowed.add(f"{ArtifactReference.__module__}.{ArtifactReference.__qualname__}")
