"""Plain values as JSON: only what comes back equal and of the same type."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer

_DEPTH = 100
#: Python refuses to write and read longer numbers as text (4,300 digits).
_INTEGER_BITS = 14_000


def is_json(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a value is exactly what its JSON form is read back as."""
    if value is None or type(value) is bool:
        return True
    if type(value) is int:
        return value.bit_length() <= _INTEGER_BITS
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is str:
        return value.isascii() or _encodes(value)
    if depth == 0:
        return False
    if type(value) is list:
        return all(is_json(item, depth - 1) for item in value)
    if type(value) is dict:
        return all(type(key) is str and is_json(key) and is_json(item, depth - 1) for key, item in value.items())
    return False


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
