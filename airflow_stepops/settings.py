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
    path = _airflow_cfg()
    return (_read(path).get(section, key, fallback=None) or None) if path else None


def dags_folder() -> Path:
    """Return the folder of DAGs, with symbolic links resolved."""
    return Path(os.path.realpath(airflow("core", "dags_folder") or airflow_home() / "dags"))


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` replaced by the user's home folder.

    :raises ConfigurationError: if the user has none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(
            f"{path}: user {os.geteuid()} has no home folder: give a path without '~', or set HOME."
        ) from error


def airflow_home() -> Path:
    """Return the folder of this machine's Airflow.

    :raises ConfigurationError: if ``AIRFLOW_HOME`` is not set, and the user has no home folder.
    """
    found = _airflow_home()
    if found is None:
        raise ConfigurationError(
            f"the folder of Airflow is not known: AIRFLOW_HOME is not set, and user {os.geteuid()} has no home folder. "
            "Set AIRFLOW_HOME."
        )
    return found


def home() -> Path:
    """Return the folder for what stays on this machine: the local stack's values, images and jobs, and caches.

    :raises ConfigurationError: if it is not known.
    """
    found = find_home()
    if found is None:
        raise ConfigurationError(
            f"the folder for what stays on this machine is not known: user {os.geteuid()} has no home folder, and "
            "AIRFLOW_HOME is not set. Set STEPOPS_HOME, or [stepops] home, to a folder that stays and that this user "
            "can write into."
        )
    return found


def find_home() -> Path | None:
    """Return the folder of :func:`home`, ``None`` where it is not known."""
    configured = get("home")
    if configured:
        return expanded(configured)
    found = _airflow_home()
    return found / "stepops" if found else None


def _airflow_home() -> Path | None:
    configured = os.environ.get("AIRFLOW_HOME")
    if configured:
        return expanded(configured)
    try:
        return Path("~/airflow").expanduser()
    except RuntimeError:
        return None


def _airflow_cfg() -> Path | None:
    configured = os.environ.get("AIRFLOW_CONFIG")
    if configured:
        return expanded(configured)
    home = _airflow_home()
    return home / "airflow.cfg" if home else None


@functools.cache
def _read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path)
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {' '.join(str(error).split())}.") from error
    return parser
