"""What a step says of itself while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from airflow_stepops.artifacts.materializers.json import is_json

_current: ContextVar[dict[str, Any] | None] = ContextVar("airflow_stepops_metadata", default=None)


def log_metadata(facts: Mapping[str, Any] | None = None, /, **more: Any) -> None:
    """Record facts about the running step: they are kept in its result and shown with the task.

    :param facts: names and plain JSON values; :param more: the same as keyword arguments.
    :raises RuntimeError: outside of a step.
    :raises TypeError: for a value that is not plain JSON, naming it.
    """
    current = _current.get()
    if current is None:
        raise RuntimeError("log_metadata() works inside a running step only.")
    given = {**(facts or {}), **more}
    for name, value in given.items():
        if not isinstance(name, str) or not is_json(value):
            raise TypeError(
                f"log_metadata({name}=…): a {type(value).__qualname__} is not plain JSON; convert it, for example with "
                "float(…) or .tolist()."
            )
    current.update(given)


@contextmanager
def collected_metadata() -> Iterator[dict[str, Any]]:
    """Collect what the step logs in the block."""
    facts: dict[str, Any] = {}
    token = _current.set(facts)
    try:
        yield facts
    finally:
        _current.reset(token)
