"""Materializers: each saves and loads one family of Python types.

To add one, derive from :class:`Materializer` and call :func:`register_materializer` in a module that both the step
that saves and the step that loads import, such as the DAG file.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.errors import ArtifactError

#: In the order in which they are asked; the last one takes everything.
_BUILT_IN = ("json", "pandas", "polars", "arrow", "numpy", "torch", "pickle")


class Materializer(ABC):
    """Saves and loads one family of types."""

    #: Written into references; stable for ever.
    name: ClassVar[str]
    #: Of the objects, with its dot.
    extension: ClassVar[str]
    #: Whether loading runs code that the bytes name, as a pickle does: the digest is then checked before.
    runs_code: ClassVar[bool] = False

    @abstractmethod
    def handles(self, value: Any) -> bool:
        """Whether the value is of the family. Must not import the family's library."""

    @abstractmethod
    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write the value and return small JSON facts about it.

        :param file: write-only; buffers given to it must not change until the method returns.
        """

    @abstractmethod
    def load(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:
        """Read a value, which must not need the file any more.

        :param file: a file of the operating system, at its start; ``file.name`` is its path.
        :param metadata: what :meth:`save` returned.
        """


_registered: dict[str, Materializer] = {}


def register_materializer(materializer: Materializer) -> None:
    """Let a materializer be asked before the built-in ones; the one registered last is asked first.

    :raises ArtifactError: when it has the name of a built-in one.
    """
    if materializer.name in _BUILT_IN:
        raise ArtifactError(f"there is a built-in materializer {materializer.name!r}: give yours another name.")
    _registered.pop(materializer.name, None)
    _registered[materializer.name] = materializer


def materializer_for(value: Any) -> Materializer:
    """Return the materializer that saves a value."""
    for materializer in (*reversed(_registered.values()), *map(_built_in, _BUILT_IN)):
        if materializer.handles(value):
            return materializer
    raise ArtifactError(f"there is no materializer for a {type(value).__qualname__}.")


def materializer_named(name: str) -> Materializer:
    """Return the materializer that a reference names.

    :raises ArtifactError: if it is not registered here.
    """
    if name in _registered:
        return _registered[name]
    if name not in _BUILT_IN:
        raise ArtifactError(
            f"the materializer {name!r} is not registered here: call register_materializer() in the module of the step."
        )
    return _built_in(name)


def _built_in(name: str) -> Materializer:
    module = importlib.import_module(f"{__name__}.{name}")
    materializer: Materializer = module.MATERIALIZER
    return materializer
