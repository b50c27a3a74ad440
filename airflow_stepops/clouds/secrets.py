"""Secrets that are variables of the machine that launches a job."""

from __future__ import annotations

import os
from collections.abc import Mapping

from airflow_stepops.errors import JobRefusedError

_SCHEME = "env:"


def launcher_secrets(references: Mapping[str, str]) -> dict[str, str]:
    """Return the values of ``env:NAME`` references by NAME; other references the job resolves itself.

    :param references: variable of the step → reference.
    :raises JobRefusedError: naming a variable that is not set here.
    """
    values: dict[str, str] = {}
    for variable, reference in references.items():
        if not reference.startswith(_SCHEME):
            continue
        name = reference.removeprefix(_SCHEME)
        if name not in os.environ:
            raise JobRefusedError(
                f"secret {variable}={reference!r}: the variable {name} is not set where the step is launched: set it "
                "for the Airflow workers."
            )
        values[name] = os.environ[name]
    return values
