"""Turns what pydantic finds wrong into one line for people, and refuses secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from airflow_stepops.errors import StackError, did_you_mean

_SECRET_NAME = re.compile(r"(^|_)(password|passwd|secret|token|credentials?|(api|access|account|private|secret)_key)$")
_SECRET_VALUES = (
    re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    re.compile(r"\bya29\.[A-Za-z0-9_-]{20,}"),
    re.compile(r"AccountKey=[A-Za-z0-9+/=]{40,}"),
    re.compile(r"://[^/\s:@]+:[^/\s@]+@"),
)


def model_error(error: ValidationError, where: str, model: type[BaseModel]) -> StackError:
    """Return the first thing that is wrong as one line.

    :param where: file and path of the component, such as ``stepops.yaml: step_operators.engine``.
    """
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in (where, *first["loc"]))
    if first["type"] == "extra_forbidden":
        return unknown_key(
            path, str(first["loc"][-1]), (name for name in model.model_fields if name != "name"), "setting"
        )
    if first["type"] == "missing":
        return StackError(f"{path}: this setting is required.")
    message = first["msg"].removeprefix("Value error, ")
    return StackError(f"{path}: {first['input']!r} is not allowed: {message[0].lower()}{message[1:]}.")


def unknown_key(path: str, key: str, allowed: Iterable[str], what: str) -> StackError:
    """Return the error for a key that is not known, with the nearest one."""
    names = sorted(allowed)
    return StackError(f"{path}: unknown {what}.{did_you_mean(key, names)} Allowed: {', '.join(names) or 'none'}.")


def refuse_secrets(values: Mapping[str, Any], where: str) -> None:
    """Refuse values that look like secrets: the file is under version control and read by every component.

    :raises StackError: naming the setting, never its value.
    """
    for key, value in values.items():
        path = f"{where}.{key}"
        if isinstance(value, Mapping):
            refuse_secrets(value, path)
            continue
        texts = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
        if texts and (_SECRET_NAME.search(str(key).lower()) or any(_looks_secret(text) for text in texts)):
            raise StackError(
                f"{path}: looks like a secret, which does not belong in this file. Put it into an Airflow connection "
                "and give the connection's id."
            )


def _looks_secret(text: str) -> bool:
    return any(pattern.search(text) for pattern in _SECRET_VALUES)
