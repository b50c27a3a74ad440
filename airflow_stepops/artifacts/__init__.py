"""Values that steps return, in the artifact store: the store, references to values, materializers."""

from __future__ import annotations

from airflow_stepops.artifacts.materializers import Materializer, register_materializer
from airflow_stepops.artifacts.reference import ArtifactReference

__all__ = ["ArtifactReference", "Materializer", "register_materializer"]
