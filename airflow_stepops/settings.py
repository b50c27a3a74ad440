"""The settings of this installation: ``[stepops]`` in airflow.cfg, or ``STEPOPS_…`` variables.

Airflow's own configuration is read only where Airflow is loaded already, so that a command or a job that
does without Airflow does not pay for it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def get(key: str) -> str | None:
    """Return a setting: the variable ``STEPOPS_<KEY>``, else ``[stepops] <key>`` of Airflow, else ``None``."""
    value = os.environ.get(f"STEPOPS_{key.upper()}")
    if value:
        return value
    return airflow("stepops", key)


def airflow(section: str, key: str) -> str | None:
    """Return an option of airflow.cfg, or of its variable where Airflow is not loaded; ``None`` when it is not set."""
    configuration = sys.modules.get("airflow.configuration")
    if configuration is not None:
        return configuration.conf.get(section, key, fallback=None) or None
    return os.environ.get(f"AIRFLOW__{section.upper()}__{key.upper()}") or None


def home() -> Path:
    """Return the folder for what stays on this machine: the local stack's values, images and jobs, and caches."""
    configured = get("home")
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "stepops"
