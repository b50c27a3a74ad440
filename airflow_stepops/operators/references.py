"""Lets tasks of this installation receive artifact references through XCom, and load their values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.artifacts.store import register_opener
from airflow_stepops.operators.versions import serde

if TYPE_CHECKING:
    from airflow_stepops.artifacts.store import ArtifactStore


def allow_references() -> None:
    """Allow Airflow to rebuild references from XCom in this process, and look their stores up in the stack file.

    Airflow rebuilds only classes that are allowed.
    """
    if hasattr(serde, "allow_class"):
        serde.allow_class(ArtifactReference)
    else:  # before Airflow 3.3, which made this public
        serde._extra_allowed.add(f"{ArtifactReference.__module__}.{ArtifactReference.__qualname__}")
    register_opener(_store_of)


def _store_of(uri: str) -> ArtifactStore | None:
    from airflow_stepops.stacks.file import store_for

    return store_for(uri, _folder_of_dag())


def _folder_of_dag() -> Path | None:
    """Return the folder of the DAG whose task runs here: the stack file may be there, as in a DAG bundle."""
    from airflow.sdk import get_current_context

    try:
        context = get_current_context()
    except RuntimeError:  # no task runs here
        return None
    return Path(context["dag"].fileloc).resolve().parent
