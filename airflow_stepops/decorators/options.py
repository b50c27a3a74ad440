"""Checks the arguments of ``@step`` while the DAG is parsed."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk import BaseOperator

from airflow_stepops.errors import StepDefinitionError, did_you_mean
from airflow_stepops.options import Image, Resources, duration_seconds

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_REFERENCE = re.compile(r"[a-z][a-z0-9-]*:.+")


def check_options(options: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the options with durations in seconds and without those that are ``None``.

    :param what: the step's name, for errors.
    :raises StepDefinitionError: naming the option, its value, what is allowed, and the nearest name.
    """
    own = _checks()
    checked = {}
    for name, value in options.items():
        if name in own:
            if value is not None:
                checked[name] = own[name](value, f"@step({name}=…) of {what}" if what != "step" else f"@step({name}=…)")
        elif name in _operator_arguments() or name == "multiple_outputs":
            checked[name] = value
        else:
            allowed = sorted({*own, *_operator_arguments()})
            raise StepDefinitionError(
                f"@step has no argument {name!r}.{did_you_mean(name, allowed)} Its own: {', '.join(sorted(own))}; "
                "besides these, the arguments of Airflow's BaseOperator."
            )
    if "name" in checked and "task_id" in checked:
        raise StepDefinitionError("@step(name=…, task_id=…) say the same: give one of them.")
    return checked


@functools.cache
def _operator_arguments() -> frozenset[str]:
    return frozenset(inspect.signature(BaseOperator.__init__).parameters) - {"self", "args", "kwargs"}


@functools.cache
def _checks() -> dict[str, Callable[[Any, str], Any]]:
    return {
        "step_operator": _step_operator,
        "resources": functools.partial(_instance, Resources),
        "image": functools.partial(_instance, Image),
        "timeout": duration_seconds,
        "pending_timeout": duration_seconds,
        "environment": _environment,
        "secrets": _secrets,
        "settings": _settings,
        "stack": _text,
        "name": _text,
    }


def _step_operator(value: Any, field: str) -> str | bool | None:
    if value is True or value is False:
        return value or None
    if isinstance(value, str) and value:
        return value
    raise StepDefinitionError(
        f"{field}: {value!r} is neither the name of a step operator in the stack, nor True for its default."
    )


def _instance(kind: type[Any], value: Any, field: str) -> Any:
    if not isinstance(value, kind):
        raise StepDefinitionError(f"{field}: {value!r} must be {kind.__name__}(…), imported from airflow_stepops.dag.")
    return value


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value:
        raise StepDefinitionError(f"{field}: {value!r} must be text.")
    return value


def _settings(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise StepDefinitionError(f"{field}: {value!r} must be a dict of settings of the step operator's flavor.")
    return dict(value)


def _environment(value: Any, field: str) -> dict[str, str]:
    variables = _mapping_of_text(value, field)
    for name in variables:
        if name.startswith("STEPOPS_"):
            raise StepDefinitionError(
                f"{field}: {name!r} is reserved: names that start with STEPOPS_ are the runtime's."
            )
    return variables


def _secrets(value: Any, field: str) -> dict[str, str]:
    references = _mapping_of_text(value, field)
    for name, reference in references.items():
        if not _SECRET_REFERENCE.fullmatch(reference):
            # The value is not repeated: it may be the secret itself.
            raise StepDefinitionError(
                f"{field}: the value of {name!r} is not a secret reference. Give where the job finds the secret, such "
                "as 'env:NAME' or 'file:/run/secrets/name', never the secret itself."
            )
    return references


def _mapping_of_text(value: Any, field: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise StepDefinitionError(f"{field}: {type(value).__name__} must be a dict of variable names and text.")
    for name, text in value.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise StepDefinitionError(f"{field}: {name!r} is not a variable name (letters, digits and _).")
        if not isinstance(text, str):
            raise StepDefinitionError(
                f"{field}: the value of {name!r} is {type(text).__name__}; it must be text: use str(…)."
            )
    return dict(value)
