"""Everything else by cloudpickle. The digest is checked before a pickle is loaded."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from types import FunctionType
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts import modules
from airflow_stepops.artifacts.materializers import Materializer


class PickleMaterializer(Materializer):
    """Any object that cloudpickle can pickle: models of scikit-learn, dataclasses, functions."""

    name: ClassVar[str] = "pickle"
    extension: ClassVar[str] = ".pkl"
    runs_code: ClassVar[bool] = True

    def handles(self, value: Any) -> bool:  # noqa: ARG002
        """Return True."""
        return True

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write a pickle that names what the step's module defines by its name in the image."""
        _pickler(file).dump(value)
        return {}

    def load(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Read a pickle."""
        return pickle.load(file)  # noqa: S301 - values.load() has checked the digest


#: Read by every Python from 3.8 on; large buffers are written without a copy.
_PROTOCOL = 5


def _pickler(file: BinaryIO) -> Any:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, (type, FunctionType)):
                stable = modules.stable_name(obj)
                if stable is not None:
                    return modules.import_from, (stable, obj.__qualname__)
            return super().reducer_override(obj)

    return Pickler(file, protocol=_PROTOCOL)


MATERIALIZER = PickleMaterializer()
