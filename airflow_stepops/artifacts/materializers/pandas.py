"""pandas frames and series as Parquet, with index, types and attributes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer
from airflow_stepops.artifacts.materializers.arrow import describe, write_table


class PandasMaterializer(Materializer):
    """``pandas.DataFrame`` and ``pandas.Series`` of data that Parquet can hold; others are pickled."""

    name: ClassVar[str] = "pandas"
    extension: ClassVar[str] = ".parquet"

    def handles(self, value: Any) -> bool:
        """Whether the value is a plain frame or series whose columns and types survive Parquet."""
        pandas = sys.modules.get("pandas")
        if pandas is None or type(value) not in (pandas.DataFrame, pandas.Series):
            return False
        if type(value) is pandas.DataFrame:
            return _survives(pandas, value)
        return (value.name is None or type(value.name) is str) and _survives(pandas, value.to_frame("value"))

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write Parquet, column by column out of the frame's own memory."""
        import pandas as pd
        import pyarrow as pa

        series = isinstance(value, pd.Series)
        frame = value.to_frame("value") if series else value
        table = pa.Table.from_pandas(frame, preserve_index=None)
        write_table(table, file)
        facts = describe(table)
        return {**facts, "series": value.name} if series else facts

    def load(self, path: Path, metadata: Mapping[str, Any]) -> Any:
        """Read Parquet; each Arrow column is let go as soon as its pandas column is made."""
        import pyarrow as pa
        from pyarrow import parquet

        table = parquet.read_table(path, partitioning=None)
        options = {"split_blocks": True, "self_destruct": True}
        frame = table.to_pandas(**options)
        del table
        pa.default_memory_pool().release_unused()
        if "series" not in metadata:
            return frame
        return frame["value"].rename(metadata["series"])


def _survives(pandas: Any, frame: Any) -> bool:
    """Whether columns have text names of one level, and hold no arbitrary objects."""
    if frame.columns.nlevels != 1 or not all(type(name) is str for name in frame.columns):
        return False
    if frame.columns.has_duplicates or frame.columns.name is not None:
        return False
    levels = [frame.index.get_level_values(level) for level in range(frame.index.nlevels)]
    if not all(name is None or type(name) is str for name in frame.index.names):
        return False
    for data in (*(frame[name] for name in frame.columns), *levels):
        inferred = pandas.api.types.infer_dtype(data, skipna=False) if data.dtype == object else "typed"
        if inferred not in ("typed", "string", "bytes"):
            return False
        if isinstance(data.dtype, (pandas.SparseDtype, pandas.IntervalDtype)):
            return False
    return True


MATERIALIZER = PandasMaterializer()
