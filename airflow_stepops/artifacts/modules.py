"""Modules by the name that they have in the image.

Airflow imports a DAG file under a name of its own making; a job imports it by its place in the code folder.
Pickles name the second, and both sides find it here.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

_namespaces: dict[str, dict[str, Any]] = {}
_names: dict[str, str] = {}


def alias(name: str, imported_as: str, namespace: dict[str, Any]) -> None:
    """Say that a module, however it was imported, is the one called ``name`` in the image.

    :param imported_as: its ``__name__`` here.
    :param namespace: its globals; the module object itself may have been imported anew since.
    """
    _namespaces[name] = namespace
    _names[imported_as] = name


def stable_name(thing: Any) -> str | None:
    """Return the name in the image of the module that defines a class or function at its top, else ``None``."""
    name = _names.get(getattr(thing, "__module__", ""))
    if name is None:
        return None
    try:
        return name if import_from(name, thing.__qualname__) is thing else None
    except AttributeError:
        return None


def display_name(kind: type) -> str:
    """Return the qualified name of a class, with the name of its module in the image."""
    return f"{_names.get(kind.__module__, kind.__module__)}.{kind.__qualname__}"


def import_from(name: str, qualname: str) -> Any:
    """Return what a pickle names by module and qualified name; of a step, its function."""
    first, *rest = qualname.split(".")
    namespace = _namespaces.get(name) or vars(importlib.import_module(name))
    if first not in namespace:
        raise AttributeError(f"module {name!r} has no {first!r}")
    found: Any = namespace[first]
    for part in rest:
        found = getattr(found, part)
    return unwrapped(found)


def unwrapped(thing: Any) -> Any:
    """Return the function of a step or task; anything else as it is, with the decorators that it has."""
    while not inspect.isroutine(thing) and not isinstance(thing, type) and hasattr(thing, "__wrapped__"):
        thing = thing.__wrapped__
    return thing
