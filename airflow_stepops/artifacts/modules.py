"""Modules by the name that they have in the image.

Airflow imports a DAG file under a name of its own making; a job imports it by its place in the code folder.
Pickles name the second, and both sides find it here.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

_by_name: dict[str, ModuleType] = {}
_names: dict[str, str] = {}


def alias(name: str, module: ModuleType) -> None:
    """Say that a module, however it was imported, is the one called ``name`` in the image."""
    _by_name[name] = module
    _names[module.__name__] = name


def stable_name(thing: Any) -> str | None:
    """Return the name in the image of the module that defines a class or function at its top, else ``None``."""
    name = _names.get(getattr(thing, "__module__", ""))
    if name is None:
        return None
    try:
        return name if import_from(name, thing.__qualname__) is thing else None
    except AttributeError:
        return None


def import_from(name: str, qualname: str) -> Any:
    """Return what a pickle names by module and qualified name; of a step, its function."""
    found: Any = _by_name.get(name) or importlib.import_module(name)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found if isinstance(found, type) else inspect.unwrap(found)
