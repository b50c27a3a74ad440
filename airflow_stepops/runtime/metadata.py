"""What a step says of itself while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_stepops.artifacts.materializers.json import is_json

#: Of the running step. One process runs one step, in whose threads this is seen too.
_current: dict[str, Any] | None = None


def log_metadata(facts: Mapping[str, Any] | None = None, /, **more: Any) -> None:
    """Record facts about the running step: they are kept in its result and shown with the task.

    Outside of a step, as in a test that calls its function, they are checked and kept nowhere.

    :param facts: names and plain JSON values.
    :param more: the same as keyword arguments.
    :raises TypeError: for a value that is not plain JSON, naming it.
    """
    given = {**(facts or {}), **more}
    for name, value in given.items():
        if not isinstance(name, str) or not is_json(value):
            raise TypeError(
                f"log_metadata({name}=…): a {type(value).__qualname__} is not plain JSON; convert it, for example with "
                "float(…) or .tolist()."
            )
    if _current is not None:
        _current.update(json.loads(json.dumps(given)))  # what becomes of a list afterwards is the step's own affair


@contextmanager
def collected_metadata() -> Iterator[dict[str, Any]]:
    """Collect what the step logs in the block."""
    global _current
    outer, _current = _current, {}
    try:
        yield _current
    finally:
        _current = outer
