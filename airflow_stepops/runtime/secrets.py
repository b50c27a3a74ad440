"""Secrets of a step: the spec names where they are, the job fetches them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from airflow_stepops.errors import ConfigurationError

#: Where engines put secrets as files.
_FOLDER = Path("/run/secrets")


def resolve(references: Mapping[str, str]) -> dict[str, str]:
    """Return the values of secret references by variable name.

    :param references: variable → ``env:NAME`` (a variable, or the file ``/run/secrets/NAME``) or ``file:PATH``.
    :raises ConfigurationError: naming variable and reference, never a value.
    """
    return {variable: _value(variable, reference) for variable, reference in references.items()}


def _value(variable: str, reference: str) -> str:
    scheme, _, place = reference.partition(":")
    if scheme == "env" and place in os.environ:
        return os.environ[place]
    if scheme == "env":
        return _read(_FOLDER / place, variable, reference)
    if scheme == "file":
        return _read(Path(place), variable, reference)
    raise ConfigurationError(f"secret {variable}={reference!r}: this image knows env:NAME and file:PATH only.")


def _read(path: Path, variable: str, reference: str) -> str:
    try:
        return path.read_text().rstrip("\n")
    except OSError as error:
        problem = error.strerror
    raise ConfigurationError(f"secret {variable}={reference!r}: not found where the job runs ({problem}: {path}).")
