"""Arrow tables as Parquet."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer

#: Rows of about this many bytes are compressed and written at a time.
_ROW_GROUP_BYTES = 64 * 1024 * 1024


def write_table(table: Any, file: BinaryIO) -> None:
    """Write an Arrow table in row groups that bound the memory needed beside it."""
    import pyarrow as pa
    from pyarrow import parquet

    row_bytes = max(1, table.nbytes // max(1, table.num_rows))
    rows = max(1024, _ROW_GROUP_BYTES // row_bytes)
    sink = pa.PythonFile(file, mode="w")
    with parquet.ParquetWriter(sink, table.schema, compression="snappy") as writer:
        writer.write_table(table, row_group_size=rows)


def describe(table: Any) -> dict[str, Any]:
    """Return rows and columns for people, the first hundred columns at most."""
    return {"rows": table.num_rows, "columns": table.column_names[:100]}


class ArrowMaterializer(Materializer):
    """``pyarrow.Table``."""

    name: ClassVar[str] = "arrow"
    extension: ClassVar[str] = ".parquet"

    def handles(self, value: Any) -> bool:
        """Whether the value is an Arrow table."""
        pyarrow = sys.modules.get("pyarrow")
        return pyarrow is not None and isinstance(value, pyarrow.Table)

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write Parquet; the schema with its metadata is kept."""
        write_table(value, file)
        return describe(value)

    def load(self, path: Path, metadata: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Read Parquet."""
        from pyarrow import parquet

        return parquet.read_table(path, partitioning=None)


MATERIALIZER = ArrowMaterializer()
