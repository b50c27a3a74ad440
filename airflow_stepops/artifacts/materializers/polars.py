"""Polars frames and series as Parquet."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer
from airflow_stepops.errors import ArtifactError


class PolarsMaterializer(Materializer):
    """``polars.DataFrame`` and ``polars.Series``."""

    name: ClassVar[str] = "polars"
    extension: ClassVar[str] = ".parquet"

    def handles(self, value: Any) -> bool:
        """Whether the value is of Polars and holds no Python objects."""
        polars = sys.modules.get("polars")
        if polars is None:
            return False
        if isinstance(value, polars.Series):
            return bool(value.dtype != polars.Object)
        if isinstance(value, polars.DataFrame):
            return polars.Object not in value.dtypes
        return isinstance(value, polars.LazyFrame)

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write Parquet."""
        import polars as pl

        if isinstance(value, pl.LazyFrame):
            raise ArtifactError("a polars.LazyFrame is a plan, not data: return value.collect().")
        series = isinstance(value, pl.Series)
        frame = value.to_frame("value") if series else value
        frame.write_parquet(file, compression="zstd", compression_level=1)
        facts: dict[str, Any] = {"rows": frame.height, "columns": frame.columns[:100]}
        return {**facts, "series": value.name} if series else facts

    def load(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:
        """Read Parquet."""
        import polars as pl

        try:
            frame = pl.read_parquet(file.name, hive_partitioning=False, glob=False, memory_map=False)
        except pl.exceptions.PanicException as error:  # how Polars meets some broken files; not an Exception
            raise ValueError(str(error)) from error
        return frame.to_series().alias(metadata["series"]) if "series" in metadata else frame


MATERIALIZER = PolarsMaterializer()
