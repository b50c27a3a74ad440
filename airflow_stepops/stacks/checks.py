"""Turns what pydantic finds wrong into one line for people, and refuses secrets."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from airflow_stepops.errors import StackError, did_you_mean

_SENSITIVE = r"(password|passwd|secret|(^|[_-])(token|credentials?)|(api|access|account|private|secret)_?key)"
_SECRET_NAME = re.compile(rf"{_SENSITIVE}$", re.IGNORECASE)
_SECRET_VALUES = (
    re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    re.compile(r"\bya29\.[A-Za-z0-9_-]{20,}"),
    re.compile(r"AccountKey=[A-Za-z0-9+/=]{40,}"),
    re.compile(r"[?&]sig=[A-Za-z0-9%+/=]{20,}"),
    re.compile(r"://[^/\s:@]*:[^/\s@]+@"),
    # A variable, as in a list of them for a container.
    re.compile(rf"^\w*{_SENSITIVE}=.", re.IGNORECASE),
)


def model_error(error: ValidationError, prefix: str, model: type[BaseModel]) -> StackError:
    """Return what is wrong as one line; a wrong name before all else, since it explains the rest.

    :param prefix: what comes before a setting's name, such as ``stepops.yaml: step_operators.engine.``.
    """
    found = error.errors(include_url=False)
    first = next((item for item in found if item["type"] == "extra_forbidden"), found[0])
    path = prefix + ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        allowed = (name for name in model.model_fields if name != "name")
        return unknown_key(path, str(first["loc"][-1]), allowed, "setting")
    if first["type"] == "missing":
        return StackError(f"{path}: this setting is required.")
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:  # of settings that do not go together
        return StackError(f"{prefix.rstrip('.: ')}: {message}.")
    return StackError(f"{path}: {reprlib.repr(first['input'])} is not allowed: {message[0].lower()}{message[1:]}.")


def unknown_key(path: str, key: str, allowed: Iterable[str], what: str) -> StackError:
    """Return the error for a key that is not known, with the nearest one."""
    names = sorted(allowed)
    return StackError(f"{path}: unknown {what}.{did_you_mean(key, names)} Allowed: {', '.join(names) or 'none'}.")


def refuse_secrets(value: Any, where: str, name: str = "") -> None:
    """Refuse values that look like secrets: the file is under version control and read by every component.

    :param value: settings, at any depth.
    :param where: file and path of the value, for the error.
    :param name: what the value is called.
    :raises StackError: naming the setting, never its value.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            refuse_secrets(item, f"{where}.{key}" if name else f"{where}: {key}", str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            refuse_secrets(item, where, name)
    elif (isinstance(value, str) and _looks_secret(value)) or (value is not None and _SECRET_NAME.search(name)):
        raise StackError(
            f"{where}: looks like a secret, which does not belong here. Put it into an Airflow connection and give "
            "the connection's id."
        )


def _looks_secret(text: str) -> bool:
    return any(pattern.search(text) for pattern in _SECRET_VALUES)
