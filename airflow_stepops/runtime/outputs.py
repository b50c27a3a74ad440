"""The named outputs of a step, read from its return annotation."""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from airflow_stepops.errors import ArtifactError, StepDefinitionError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class _Unresolved:
    """Stands for a type that is imported for type checkers only."""

    def __getattr__(self, name: str) -> _Unresolved:
        if name.startswith("__"):  # typing asks objects what they are
            raise AttributeError(name)
        return self

    def __getitem__(self, item: Any) -> _Unresolved:
        return self

    def __or__(self, other: Any) -> _Unresolved:
        return self

    __ror__ = __or__

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Be callable, which is what typing asks of a type."""


class _Names(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        builtin = vars(sys.modules["builtins"]).get(name)
        return _Unresolved() if builtin is None else builtin


def declared_outputs(function: Callable[..., Any]) -> list[str] | None:
    """Return the names of a step's outputs, or ``None`` when it has one without a name.

    Names come from ``tuple[Annotated[X, "a"], Annotated[Y, "b"]]``, a TypedDict, or a dataclass.

    :raises StepDefinitionError: for a name that is given twice or is not a name.
    """
    annotation = getattr(function, "__annotations__", {}).get("return")
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, _Names(getattr(function, "__globals__", {})))  # noqa: S307 - the user's own
        except Exception:  # noqa: BLE001 - an annotation that cannot be evaluated declares nothing
            return None
    names = _names(annotation)
    if names is None:
        return None
    for name in names:
        if not _NAME.fullmatch(name) or names.count(name) > 1:
            problem = "is given twice" if names.count(name) > 1 else "is not letters, digits, _ and -, at most 64"
            raise StepDefinitionError(f"Step {function.__name__!r}: the output name {name!r} {problem}.")
    return names


def split_outputs(value: Any, names: list[str] | None) -> dict[str, Any]:
    """Return the outputs of a step by name.

    :param names: as from :func:`declared_outputs`.
    :raises ArtifactError: when the value does not have the declared outputs.
    """
    if names is None:
        return {"return_value": value}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        if set(value) != set(names):
            raise ArtifactError(f"the step declares the outputs {names} and returned {sorted(map(str, value))}.")
        return {name: value[name] for name in names}
    if isinstance(value, (tuple, list)):
        if len(value) != len(names):
            raise ArtifactError(f"the step declares {len(names)} outputs, {names}, and returned {len(value)}.")
        return dict(zip(names, value, strict=True))
    raise ArtifactError(f"the step declares the outputs {names} and returned one {type(value).__qualname__}.")


def _names(annotation: Any) -> list[str] | None:
    if typing.is_typeddict(annotation):
        return list(annotation.__annotations__)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return [field.name for field in dataclasses.fields(annotation)]
    if typing.get_origin(annotation) is not tuple:
        return None
    parts = typing.get_args(annotation)
    named = [_name(part) for part in parts]
    if not parts or all(name is None for name in named):
        return None
    if any(name is None for name in named):
        raise StepDefinitionError("name all parts of a tuple with Annotated[type, 'name'], or none of them.")
    return [name for name in named if name is not None]


def _name(part: Any) -> str | None:
    if typing.get_origin(part) is not Annotated:
        return None
    return next((item for item in part.__metadata__ if isinstance(item, str)), None)
