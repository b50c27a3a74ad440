"""Lets tasks of this installation receive artifact references through XCom, and load them."""

from __future__ import annotations

from airflow.sdk import serde

from airflow_stepops.artifacts.reference import ArtifactReference


def allow_references() -> None:
    """Allow Airflow to rebuild references from XCom, and references to find their artifact store.

    Airflow rebuilds only allowed classes. From 3.3 on a provider can allow its own; before, the setting
    ``[core] allowed_deserialization_classes`` is extended for this process.
    """
    if hasattr(serde, "allow_class"):
        serde.allow_class(ArtifactReference)
    else:
        _extend_setting()


def _extend_setting() -> None:
    from airflow.configuration import conf

    name = f"{ArtifactReference.__module__}.{ArtifactReference.__qualname__}"
    allowed = conf.get("core", "allowed_deserialization_classes").split()
    if name not in allowed:
        conf.set("core", "allowed_deserialization_classes", " ".join([*allowed, name]))
        serde._get_patterns.cache_clear()
