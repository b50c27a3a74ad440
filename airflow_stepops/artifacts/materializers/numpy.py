"""NumPy arrays as ``.npy``, streamed from and into their own memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer

#: NumPy reads long headers, of types with many fields, only when allowed to.
_HEADER_BYTES = 16 * 1024 * 1024


class NumpyMaterializer(Materializer):
    """Arrays of every type but objects, which are pickled."""

    name: ClassVar[str] = "numpy"
    extension: ClassVar[str] = ".npy"

    def handles(self, value: Any) -> bool:
        """Whether the value is a plain array without Python objects in it."""
        numpy = sys.modules.get("numpy")
        return numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write the array's own memory, without a copy where it is contiguous."""
        import numpy as np

        contiguous = value.flags.c_contiguous or value.flags.f_contiguous
        if not contiguous or value.nbytes == 0 or value.dtype.kind == "V":
            np.lib.format.write_array(file, value, allow_pickle=False)
        else:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(value))
            flat = (value if value.flags.c_contiguous else value.T).reshape(-1)
            file.write(memoryview(flat.view(np.uint8)))
        return {"shape": list(value.shape), "dtype": str(value.dtype)[:100]}

    def load(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Read into fresh memory."""
        import numpy as np

        return np.load(file, allow_pickle=False, max_header_size=_HEADER_BYTES)


MATERIALIZER = NumpyMaterializer()
