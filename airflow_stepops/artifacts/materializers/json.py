"""Plain values as JSON: only what comes back equal and of the same type."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer

_DEPTH = 100
#: Larger ones are pickled: a few parts that are used again and again would have a text without end.
_MOST_VALUES = 10_000_000
#: Python refuses to write and read longer numbers as text (4,300 digits).
_INTEGER_BITS = 14_000


def is_json(value: Any) -> bool:
    """Whether a value is exactly what its JSON form is read back as, and not too large or deep for one."""
    return _is_scalar(value) or _measure(value, _DEPTH, {}) is not None


def _measure(value: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int] | None:
    """Return how many values the JSON form of a list or dict has and how deep it is, ``None`` when it has none.

    :param depth: how deep it may be.
    :param known: what is known by now of lists and dicts, by their ids: one that is used twice is looked at once.
    """
    size, height = known.get(id(value), (0, 0))
    if not size and depth > 0 and type(value) in (list, dict):
        items: Iterable[Any] = value
        if type(value) is dict:
            if not all(type(key) is str and _is_scalar(key) for key in value):
                return None
            items = value.values()
        size, height = 1, 1
        for item in items:
            if _is_scalar(item):
                size += 1
                continue
            found = _measure(item, depth - 1, known)
            if found is None:
                return None
            size, height = size + found[0], max(height, found[1] + 1)
        known[id(value)] = size, height
    return (size, height) if 0 < size <= _MOST_VALUES and height <= depth else None


def _is_scalar(value: Any) -> bool:
    if value is None or type(value) is bool:
        return True
    if type(value) is int:
        return value.bit_length() <= _INTEGER_BITS
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is str and (value.isascii() or _encodes(value))


def _encodes(text: str) -> bool:
    """Whether the text has no lone surrogates, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class JsonMaterializer(Materializer):
    """None, booleans, integers, finite floats, text, lists, and dicts with text as keys."""

    name: ClassVar[str] = "json"
    extension: ClassVar[str] = ".json"

    def handles(self, value: Any) -> bool:
        """Whether the value is exactly its JSON form."""
        return is_json(value)

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write UTF-8 JSON."""
        file.write(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
        return {}

    def load(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Read UTF-8 JSON."""
        return json.loads(file.read())


MATERIALIZER = JsonMaterializer()
