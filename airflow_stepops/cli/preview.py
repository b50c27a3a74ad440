"""A look into a stored value that runs none of it: JSON, first rows of tables, shapes and first numbers of arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_stepops.cli.summary import size

if TYPE_CHECKING:
    from airflow_stepops.artifacts.reference import ArtifactReference
    from airflow_stepops.artifacts.store import ArtifactStore

#: Larger objects are not fetched for a look.
MOST_BYTES = 1_000_000_000
ROWS = 10
NUMBERS = 20


def preview(reference: ArtifactReference, store: ArtifactStore) -> dict[str, Any]:
    """Return what there is to see of a value, after checking its digest.

    :return: ``form`` and what belongs to it: ``json``: ``value``; ``table``: ``rows`` (their number), ``schema``
        (column → type), ``head`` (a list of rows); ``array``: ``shape``, ``dtype``, ``first`` (numbers); ``tensors``:
        ``tensors`` (name → ``dtype`` and ``shape``); ``none``: ``reason``.
    :raises ArtifactNotFoundError: if the object is gone.
    :raises IntegrityError: if its bytes are not those that were saved.
    """
    from airflow_stepops.artifacts.values import opened

    look = _LOOKS.get(reference.materializer)
    if look is None:
        what = "a pickle" if reference.materializer == "pickle" else f"of the materializer {reference.materializer!r}"
        return _nothing(f"it is {what}: loading it could run code. Load it where you trust it: StepRun.load().")
    if reference.size > MOST_BYTES:
        return _nothing(f"it is larger than {size(MOST_BYTES)}.")
    with opened(reference, store) as file:
        try:
            return look(file)
        except ModuleNotFoundError as error:
            return _nothing(f"install {error.name} here to see it.")


def _nothing(reason: str) -> dict[str, Any]:
    return {"form": "none", "reason": reason}


def _json(file: BinaryIO) -> dict[str, Any]:
    return {"form": "json", "value": json.loads(file.read())}


def _table(file: BinaryIO) -> dict[str, Any]:
    from pyarrow import parquet

    opened = parquet.ParquetFile(file)
    first = next(opened.iter_batches(batch_size=ROWS), None)
    return {
        "form": "table",
        "rows": opened.metadata.num_rows,
        "schema": {field.name: str(field.type) for field in opened.schema_arrow},
        "head": first.to_pylist() if first is not None else [],
    }


def _array(file: BinaryIO) -> dict[str, Any]:
    import numpy as np

    array = np.load(file.name, mmap_mode="r", allow_pickle=False)
    return {
        "form": "array",
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "first": array.flat[:NUMBERS].tolist(),
    }


def _tensors(file: BinaryIO) -> dict[str, Any]:
    # A safetensors file begins with the length of its header, which is JSON.
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
    tensors = {
        name: {"dtype": facts["dtype"], "shape": facts["shape"]}
        for name, facts in header.items()
        if name != "__metadata__"
    }
    return {"form": "tensors", "tensors": tensors}


_LOOKS: dict[str, Callable[[BinaryIO], dict[str, Any]]] = {
    "json": _json,
    "pandas": _table,
    "polars": _table,
    "arrow": _table,
    "numpy": _array,
    "torch": _tensors,
}
