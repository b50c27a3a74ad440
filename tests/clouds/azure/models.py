"""Holds documents to Microsoft's own models: names, required fields, enums, types and ``_validation``.

Those of ``azure-ai-ml`` (REST API 2025-12-01) have all names, types and enums, but check nothing themselves; those of
``azure-mgmt-machinelearningservices`` (2023-04-01) know fewer fields, and have patterns and lengths.
"""

from __future__ import annotations

import copy
import re
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import Enum
from typing import Any

from azure.ai.ml._restclient.arm_ml_service._utils.model_base import Model
from azure.ai.ml._restclient.arm_ml_service.models import _enums, _models
from msrest.exceptions import ValidationError
from msrest.serialization import Serializer
from pydantic import TypeAdapter

#: On the wire, but not in the published models of this version.
_UNPUBLISHED = {("QueueSettings", "priority"): int}


class RefusedError(Exception):
    """A document that Azure's models do not take."""


def fields(model: type[Any]) -> dict[str, Any]:
    """Return the names on the wire of what can be sent, with their types."""
    found: dict[str, Any] = {}
    for base in reversed(model.__mro__):
        for name in vars(base).get("__annotations__", {}):
            field = _rest_fields(model).get(name)
            if field is not None and field._visibility != ["read"]:
                found[field._rest_name] = vars(base)["__annotations__"][name]
    return found


def check_document(document: Any, model: type[Any], older: type[Any] | None = None) -> None:
    """Check a document that is sent.

    :param older: model with ``_validation``.
    :raises RefusedError: naming the field.
    """
    for problem in _problems(document, model, model.__name__):
        raise RefusedError(problem)
    if older is not None:
        _check_values(document, older)


def _rest_fields(model: type[Any]) -> dict[str, Any]:
    model()  # which finds them out
    found: dict[str, Any] = model._attr_to_rest_field
    return found


def _problems(value: Any, kind: Any, where: str) -> Iterator[str]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, typing.ForwardRef):
        yield from _problems(value, _named(kind.__forward_arg__), where)
    elif isinstance(kind, str):
        yield from _problems(value, _named(kind), where)
    elif kind is Any:
        return
    elif origin in (typing.Union, types.UnionType):
        yield from _of_union(value, arguments, where)
    elif origin is typing.Literal:
        if value not in [getattr(one, "value", one) for one in arguments]:
            yield f"{where}={value!r}: not {arguments}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{where}={value!r}: no list"
            return
        for number, one in enumerate(value):
            yield from _problems(one, arguments[0], f"{where}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{where}={value!r}: no object"
            return
        for key, one in value.items():
            yield from _problems(one, arguments[1], f"{where}.{key}")
    elif isinstance(kind, type) and issubclass(kind, Model):
        yield from _of_model(value, kind, where)
    else:
        yield from _of_simple(value, kind, where)


def _of_union(value: Any, kinds: tuple[Any, ...], where: str) -> Iterator[str]:
    if value is None and type(None) in kinds:
        return
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    named = [_named(kind.__forward_arg__) if isinstance(kind, typing.ForwardRef) else kind for kind in kinds]
    enums = [kind for kind in named if isinstance(kind, type) and issubclass(kind, Enum)]
    if enums:  # written "str or the enum"
        if value not in [one.value for one in enums[0]]:
            yield f"{where}={value!r}: not of {enums[0].__name__}"
        return
    answers = [list(_problems(value, kind, where)) for kind in named]
    if all(answers):
        yield answers[0][0]


def _of_model(value: Any, model: type[Any], where: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{where}={value!r}: no object"
        return
    model = _kind_of(value, model)
    known = fields(model)
    for name, one in value.items():
        if name in known:
            yield from _problems(one, known[name], f"{where}.{name}")
        elif (model.__name__, name) in _UNPUBLISHED:
            yield from _of_simple(one, _UNPUBLISHED[model.__name__, name], f"{where}.{name}")
        else:
            yield f"{where}.{name}: {model.__name__} has no such field"
    for name, kind in known.items():
        if name not in value and type(None) not in typing.get_args(kind):
            yield f"{where}.{name}: is required"


def _kind_of(value: Mapping[str, Any], model: type[Any]) -> type[Any]:
    """Return the kind of a document that may be of several, by the field that tells it."""
    for kind in vars(model).get("__mapping__", {}).values():
        for attribute, field in _rest_fields(kind).items():
            told = value.get(field._rest_name)
            hint = next(
                (
                    vars(base)["__annotations__"][attribute]
                    for base in kind.__mro__
                    if attribute in vars(base).get("__annotations__", {})
                ),
                None,
            )
            if typing.get_origin(hint) is typing.Literal and told == typing.get_args(hint)[0].value:
                return _kind_of(value, kind) if kind is not model else kind
    return model


def _of_simple(value: Any, kind: Any, where: str) -> Iterator[str]:
    if kind is timedelta:
        try:
            TypeAdapter(timedelta).validate_strings(value)
        except (TypeError, ValueError):
            yield f"{where}={value!r}: no duration"
    elif isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        yield f"{where}={value!r}: no {kind.__name__}"


def _named(name: str) -> Any:
    name = name.rpartition(".")[2]
    return getattr(_enums, name, None) or getattr(_models, name, None) or getattr(typing, name)


def _check_values(document: Mapping[str, Any], model: type[Any]) -> None:
    """Check what ``_validation`` says, at every depth."""
    parts = [model.from_dict(copy.deepcopy(dict(document)))]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += part.values()
        for name, rules in getattr(part, "_validation", {}).items():
            value, where = getattr(part, name), f"{type(part).__name__}.{name}"
            rules = {rule: given for rule, given in rules.items() if rule != "readonly"}
            pattern = rules.pop("pattern", "")  # which is not anchored, but msrest takes it as if it were
            if isinstance(value, str) and not re.search(pattern, value):
                raise RefusedError(f"{where}={value!r}: must match {pattern}")
            try:
                Serializer.validate(value, where, **rules)  # type: ignore[no-untyped-call]
            except ValidationError as wrong:
                raise RefusedError(str(wrong)) from wrong
        parts += [getattr(part, name) for name in getattr(part, "_attribute_map", ())]
