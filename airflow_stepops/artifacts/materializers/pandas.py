"""pandas frames and series as Parquet, with index, types and attributes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer
from airflow_stepops.artifacts.materializers.arrow import describe, open_table, write_table
from airflow_stepops.artifacts.materializers.json import is_json

#: The only column of a series.
_COLUMN = "value"
#: So much may be unused in Arrow's memory before it is given back.
_RELEASE_BYTES = 8 * 1024 * 1024


class PandasMaterializer(Materializer):
    """``pandas.DataFrame`` and ``pandas.Series`` of data that Parquet keeps exactly; others are pickled."""

    name: ClassVar[str] = "pandas"
    extension: ClassVar[str] = ".parquet"

    def handles(self, value: Any) -> bool:
        """Whether the value is a plain frame or series whose columns and types survive Parquet."""
        pandas = sys.modules.get("pandas")
        if pandas is None or type(value) not in (pandas.DataFrame, pandas.Series) or not _has_pyarrow():
            return False
        if type(value) is pandas.DataFrame:
            return _survives(pandas, value)
        return (value.name is None or type(value.name) is str) and _survives(pandas, value.to_frame(_COLUMN))

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write Parquet, column by column out of the frame's own memory."""
        import pandas as pd
        import pyarrow as pa

        series = isinstance(value, pd.Series)
        frame = value.to_frame(_COLUMN) if series else value
        table = pa.Table.from_pandas(frame, preserve_index=None)
        write_table(table, file)
        facts = describe(table)
        if isinstance(frame.index, (pd.DatetimeIndex, pd.TimedeltaIndex)) and frame.index.freq is not None:
            facts["freq"] = frame.index.freq.freqstr
        return {**facts, "series": value.name} if series else facts

    def load(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:
        """Read Parquet column by column, so that no more than one column is in memory twice."""
        import pyarrow as pa

        parquet = open_table(file)
        # Whole columns, of which there is one for each field here: pieces of them would leave holes when let go.
        columns = [parquet.reader.read_column(number) for number in range(parquet.metadata.num_columns)]
        table = pa.Table.from_arrays(columns, schema=parquet.schema_arrow)
        del columns
        frame = table.to_pandas(split_blocks=True, self_destruct=True)
        del table
        _own(frame)
        if "freq" in metadata:
            frame.index.freq = metadata["freq"]
        return frame[_COLUMN].rename(metadata["series"]) if "series" in metadata else frame


def _own(frame: Any) -> None:
    """Copy columns out of the memory of Arrow, which cannot be written to; it is given back on the way."""
    import pyarrow as pa

    copied = 0
    for number in range(frame.shape[1]):
        column = frame.iloc[:, number].copy()
        frame.isetitem(number, column)
        copied += column.nbytes
        if copied > _RELEASE_BYTES:
            pa.default_memory_pool().release_unused()
            copied = 0
    pa.default_memory_pool().release_unused()


def _has_pyarrow() -> bool:
    from importlib.util import find_spec

    return "pyarrow" in sys.modules or find_spec("pyarrow") is not None


def _survives(pandas: Any, frame: Any) -> bool:
    """Whether Parquet gives the frame back exactly: a few types, names and attributes come back as others."""
    names = frame.columns
    return (
        names.nlevels == 1
        and len(names) > 0
        and names.name is None
        and not names.has_duplicates
        and all(type(name) is str for name in names)
        and frame.flags.allows_duplicate_labels
        and is_json(frame.attrs)
        and _index_survives(pandas, frame.index)
        and all(_column_survives(pandas, column) for _, column in frame.items())
    )


def _index_survives(pandas: Any, index: Any) -> bool:
    if not all(name is None or type(name) is str for name in index.names):
        return False
    if isinstance(index, pandas.MultiIndex):
        complete = index.nlevels > 1 and all((codes >= 0).all() for codes in index.codes)
        return complete and all(_level_survives(pandas, index.get_level_values(n)) for n in range(index.nlevels))
    frequency = getattr(index, "freq", None)
    if frequency is not None and pandas.tseries.frequencies.to_offset(frequency.freqstr) != frequency:
        return False
    return _level_survives(pandas, index)


def _level_survives(pandas: Any, level: Any) -> bool:
    """Whether an index keeps its type, which the nullable ones and those of Arrow do not, unlike columns."""
    kept = (pandas.CategoricalDtype, pandas.DatetimeTZDtype)
    plain = not isinstance(level.dtype, pandas.api.extensions.ExtensionDtype)
    return (plain or isinstance(level.dtype, kept) or level.dtype == _text(pandas)) and _column_survives(pandas, level)


def _text(pandas: Any) -> Any:
    """Return the type that text has unless another is asked for: objects before pandas 3."""
    return pandas.Index(["text"]).dtype


def _column_survives(pandas: Any, data: Any) -> bool:
    dtype = data.dtype
    text = _text(pandas)
    if isinstance(dtype, pandas.CategoricalDtype):
        # Categories are written with the rows.
        return bool(len(data) and dtype.categories.inferred_type == "string" and dtype.categories.dtype == text)
    if dtype.kind == "O" and not isinstance(dtype, pandas.api.extensions.ExtensionDtype):
        kind = pandas.api.types.infer_dtype(data, skipna=False)
        return bool(kind == "bytes" or (kind == "string" and text == dtype))
    if isinstance(dtype, pandas.DatetimeTZDtype):
        return bool(dtype.unit != "s") and _zone_survives(dtype)
    if isinstance(dtype, pandas.StringDtype):
        return bool(pandas.api.types.pandas_dtype(str(dtype)) == dtype)
    plain = getattr(dtype, "numpy_dtype", dtype)  # of the nullable types
    if plain in ("datetime64[s]", "timedelta64[s]"):
        return False
    return getattr(plain, "kind", "") in "biufmM" and getattr(plain, "isnative", False)


def _zone_survives(dtype: Any) -> bool:
    """Whether Arrow gives a time zone back, as it does for those of the standard library, whole minutes from UTC."""
    import pyarrow as pa

    try:
        read = pa.timestamp(dtype.unit, dtype.tz).to_pandas_dtype()
    except (TypeError, ValueError, NotImplementedError):
        return False
    return bool(read == dtype and str(read) == str(dtype))


MATERIALIZER = PandasMaterializer()
