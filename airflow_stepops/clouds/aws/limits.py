"""Checks a request against the service's own model, before it is sent: botocore checks neither patterns nor maxima."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from airflow_stepops.errors import JobRefusedError, did_you_mean

#: Classes of characters that the models use and Python's ``re`` does not know.
_CLASSES = (
    (r"[\p{Alnum}", r"[A-Za-z0-9"),
    (r"\p{Alnum}", "[A-Za-z0-9]"),
    (r"\p{L}", r"\w"),
    (r"\p{N}", r"\d"),
    (r"\p{Z}", r"\s"),
)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
    "list": (list, tuple),
    "map": dict,
    "structure": dict,
}


def check_request(operation: Any, request: dict[str, Any]) -> None:
    """Check a request.

    :param operation: botocore's model of the operation.
    :raises JobRefusedError: naming the field, its value and what is allowed.
    """
    for problem in _problems(operation.input_shape, request, operation.name):
        raise JobRefusedError(problem)


def _problems(shape: Any, value: Any, where: str) -> Iterator[str]:
    expected = _TYPES.get(shape.type_name)
    wrong_bool = isinstance(value, bool) and shape.type_name != "boolean"
    if expected is not None and (not isinstance(value, expected) or wrong_bool):
        yield f"{where}={value!r}: must be of type {shape.type_name}."
    elif shape.type_name == "structure":
        yield from _structure_problems(shape, value, where)
    elif shape.type_name == "list":
        yield from _range_problems(shape, len(value), f"{where} has {len(value)} items")
        for number, item in enumerate(value):
            yield from _problems(shape.member, item, f"{where}[{number}]")
    elif shape.type_name == "map":
        yield from _range_problems(shape, len(value), f"{where} has {len(value)} entries")
        for key, item in value.items():
            yield from _problems(shape.key, key, f"a key of {where}")
            yield from _problems(shape.value, item, f"{where}.{key}")
    elif shape.type_name == "string":
        yield from _text_problems(shape, value, where)
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from _range_problems(shape, value, f"{where}={value}")


def _structure_problems(shape: Any, value: dict[str, Any], where: str) -> Iterator[str]:
    for name in value:
        if name not in shape.members:
            near = did_you_mean(str(name), shape.members)
            yield f"{where}.{name}: SageMaker knows no such field.{near} It knows: {', '.join(shape.members)}."
    for name in shape.required_members:
        if name not in value:
            yield f"{where}.{name}: this field is required."
    for name, item in value.items():
        if name in shape.members:
            yield from _problems(shape.members[name], item, f"{where}.{name}")


def _text_problems(shape: Any, value: str, where: str) -> Iterator[str]:
    limits = shape.metadata
    if "enum" in limits and value not in limits["enum"]:
        near = did_you_mean(value, limits["enum"])
        allowed = f" Allowed: {', '.join(limits['enum'])}." if len(limits["enum"]) <= 12 else ""
        yield f"{where}={value!r}: SageMaker knows no such value.{near}{allowed}"
    yield from _range_problems(shape, len(value), f"{where}={value!r} has {len(value)} characters")
    pattern = _compiled(limits["pattern"]) if "pattern" in limits else None
    if pattern is not None and not pattern.fullmatch(value):
        yield f"{where}={value!r}: must match {limits['pattern']}."


def _range_problems(shape: Any, size: float, what: str) -> Iterator[str]:
    limits = shape.metadata
    if "min" in limits and size < limits["min"]:
        yield f"{what}: at least {limits['min']} is needed."
    if "max" in limits and size > limits["max"]:
        yield f"{what}: at most {limits['max']} is allowed."


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """Return a pattern of the model; ``None`` for one that Python cannot read, which the service checks itself."""
    for theirs, ours in _CLASSES:
        pattern = pattern.replace(theirs, ours)
    try:
        return re.compile(pattern)
    except re.error:
        return None
