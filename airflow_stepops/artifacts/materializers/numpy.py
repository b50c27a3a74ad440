"""NumPy arrays as ``.npy``, streamed from and into their own memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer


class NumpyMaterializer(Materializer):
    """Arrays of every type but objects, which are pickled."""

    name: ClassVar[str] = "numpy"
    extension: ClassVar[str] = ".npy"

    def handles(self, value: Any) -> bool:
        """Whether the value is a plain array without Python objects in it."""
        numpy = sys.modules.get("numpy")
        return numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write the header and then the array's own memory, without a copy where it is contiguous."""
        import numpy as np

        metadata = {"shape": list(value.shape), "dtype": str(value.dtype)}
        contiguous = value.flags.c_contiguous or value.flags.f_contiguous
        if not contiguous or value.size == 0 or value.dtype.itemsize == 0:
            np.lib.format.write_array(file, value, allow_pickle=False)
            return metadata
        header = np.lib.format.header_data_from_array_1_0(value)
        np.lib.format._write_array_header(file, header, None)  # type: ignore[attr-defined]
        flat = (value if value.flags.c_contiguous else value.T).reshape(-1)
        file.write(memoryview(flat.view(np.uint8)))
        return metadata

    def load(self, path: Path, metadata: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Read into fresh memory."""
        import numpy as np

        return np.load(path, allow_pickle=False)


MATERIALIZER = NumpyMaterializer()
