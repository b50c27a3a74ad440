"""The settings of this installation: ``[stepops]`` in airflow.cfg, or ``STEPOPS_…`` variables.

Airflow is asked only where it is loaded already. A command that does without it reads airflow.cfg by itself, so that
both find the same files.
"""

from __future__ import annotations

import configparser
import functools
import os
import sys
from pathlib import Path

from airflow_stepops.errors import ConfigurationError


def get(key: str) -> str | None:
    """Return a setting: the variable ``STEPOPS_<KEY>``, else ``[stepops] <key>`` of Airflow, else ``None``."""
    value = os.environ.get(f"STEPOPS_{key.upper()}")
    if value:
        return value
    return airflow("stepops", key)


def airflow(section: str, key: str) -> str | None:
    """Return an option of Airflow: of its variable, else of airflow.cfg; ``None`` when it is not set."""
    configuration = sys.modules.get("airflow.configuration")
    if configuration is not None:
        return configuration.conf.get(section, key, fallback=None) or None
    value = os.environ.get(f"AIRFLOW__{section.upper()}__{key.upper()}")
    if value:
        return value
    path = Path(os.environ.get("AIRFLOW_CONFIG") or airflow_home() / "airflow.cfg").expanduser()
    return _read(path).get(section, key, fallback=None) or None


def dags_folder() -> Path:
    """Return the folder of DAGs, with symbolic links resolved."""
    return Path(os.path.realpath(airflow("core", "dags_folder") or airflow_home() / "dags"))


def airflow_home() -> Path:
    """Return the folder of this machine's Airflow."""
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()


def home() -> Path:
    """Return the folder for what stays on this machine: the local stack's values, images and jobs, and caches."""
    configured = get("home")
    return Path(configured).expanduser() if configured else airflow_home() / "stepops"


@functools.cache
def _read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path)
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {' '.join(str(error).split())}.") from error
    return parser
