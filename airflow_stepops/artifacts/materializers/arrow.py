"""Arrow tables as Parquet."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer

#: Rows of about this many bytes are compressed and written at a time.
_ROW_GROUP_BYTES = 64 * 1024 * 1024
_SAMPLE = 20_000
#: What pandas writes, with the names that Arrow gives to parts of nested types.
_FORM: dict[str, Any] = {"compression": "snappy", "use_compliant_nested_type": False}


def write_table(table: Any, file: BinaryIO) -> None:
    """Write an Arrow table in row groups that bound the memory needed beside it."""
    import pyarrow as pa
    from pyarrow import parquet

    row_bytes = max(1, table.nbytes // max(1, table.num_rows))
    rows = max(1024, _ROW_GROUP_BYTES // row_bytes)
    repeating = [name for name, column in zip(table.column_names, table.columns, strict=True) if _repeats(column)]
    sink = pa.PythonFile(file, mode="w")
    with parquet.ParquetWriter(sink, table.schema, use_dictionary=repeating or False, **_FORM) as writer:
        writer.write_table(table, row_group_size=rows)


def _repeats(column: Any) -> bool:
    """Whether values repeat, judged by the first ones.

    A dictionary of values that do not is given up when it is full, after it has taken most of the time and memory.
    """
    import pyarrow as pa
    from pyarrow import compute

    first = column.slice(0, _SAMPLE)
    try:
        return bool(2 * compute.count_distinct(first, mode="all").as_py() <= len(first))
    except pa.ArrowNotImplementedError:  # of a few types that are not compared
        return not pa.types.is_nested(column.type)


def open_table(file: BinaryIO) -> Any:
    """Open Parquet so that what is read is held once, not a second time in buffers."""
    from pyarrow import parquet

    return parquet.ParquetFile(file.name, pre_buffer=False)


def describe(table: Any) -> dict[str, Any]:
    """Return rows and columns for people, the first hundred columns at most."""
    return {"rows": table.num_rows, "columns": table.column_names[:100]}


class ArrowMaterializer(Materializer):
    """``pyarrow.Table``."""

    name: ClassVar[str] = "arrow"
    extension: ClassVar[str] = ".parquet"

    def handles(self, value: Any) -> bool:
        """Whether the value is an Arrow table whose types Parquet keeps; others are pickled."""
        pyarrow = sys.modules.get("pyarrow")
        return pyarrow is not None and isinstance(value, pyarrow.Table) and _survives(pyarrow, value.schema)

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write Parquet; the schema with its metadata is kept."""
        write_table(value, file)
        return describe(value)

    def load(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Read Parquet."""
        return open_table(file).read()


def _survives(pyarrow: Any, schema: Any) -> bool:
    """Whether Parquet gives the schema back: seconds become milliseconds, dictionaries of numbers are lost."""
    from pyarrow import parquet

    written = pyarrow.BufferOutputStream()
    try:
        parquet.write_table(schema.empty_table(), written, **_FORM)
    except pyarrow.ArrowException:
        return False
    return bool(parquet.read_schema(pyarrow.BufferReader(written.getvalue())).equals(schema, check_metadata=True))


MATERIALIZER = ArrowMaterializer()
