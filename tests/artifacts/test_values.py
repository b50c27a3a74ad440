"""Values come back from the artifact store as they went in, each by the materializer that is for its type."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polars.testing import assert_frame_equal as assert_polars_equal
from polars.testing import assert_series_equal as assert_polars_series_equal
from sklearn.linear_model import LogisticRegression

from airflow_stepops.artifacts import ArtifactReference
from airflow_stepops.artifacts import values as artifacts
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import ArtifactError

same_store = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def there_and_back(value: Any, store: ArtifactStore) -> tuple[str, Any]:
    """Save and load a value; return the name of its materializer, and what came back."""
    reference = artifacts.save(value, store, f"{store.root}/value")
    assert reference.size == store.size(reference.uri)
    travelled = ArtifactReference.deserialize(reference.serialize())
    return reference.materializer, artifacts.load(travelled, store)


@dataclasses.dataclass(frozen=True)
class Split:
    """A user's own class."""

    train: tuple[int, ...]
    rest: dict[str, float]


PLAIN: list[Any] = [None, True, 0, -1, 10**4200, 0.1, -0.0, 5e-324, "", "é\0\u2028😀", [], {}, [[[]]], [1, None, "x"]]
PLAIN += [{"a": {"b": [1, 2.5, {"c": None}]}, "": True}]
PICKLED: list[Any] = [
    (1, (2, [3])),
    {1},
    frozenset({2}),
    b"\0\xff",
    bytearray(b"x"),
    1 + 2j,
    {1: "a"},
    {"a": (1,)},
]
PICKLED += [math.inf, "\ud800", range(3), ..., OrderedDict(b=1, a=2), Split((1, 2), {"a": 0.5})]
PICKLED += [datetime.datetime(2026, 3, 1, tzinfo=ZoneInfo("Europe/Berlin")), datetime.timedelta(1), Path("a/b")]
PICKLED += [np.float64(0.1), np.datetime64("2026-03-01", "s"), int, [np.int8(3)]]


@pytest.mark.parametrize(
    ("value", "materializer"),
    [*((value, "json") for value in PLAIN), *((value, "pickle") for value in PICKLED)],
    ids=lambda value: repr(value)[:30],
)
def test_a_python_value_comes_back_equal_and_of_its_type(
    value: Any, materializer: str, folder_store: ArtifactStore
) -> None:
    used, found = there_and_back(value, folder_store)
    assert used == materializer
    assert (found, type(found), repr(found)[:99]) == (value, type(value), repr(value)[:99])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_too_long_for_text_comes_back(sign: int, folder_store: ArtifactStore) -> None:
    used, found = there_and_back(sign << 20_000, folder_store)
    assert used == "pickle"
    assert found == sign << 20_000


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    )
)
@same_store
def test_any_nesting_of_plain_values_comes_back_exactly(value: Any, folder_store: ArtifactStore) -> None:
    _, found = there_and_back(value, folder_store)
    assert repr(found) == repr(value)  # equal NaNs, minus zeros and types


def test_nesting_deeper_than_json_takes_comes_back(folder_store: ArtifactStore) -> None:
    value: list[Any] = []
    for _ in range(150):
        value = [value]
    used, found = there_and_back(value, folder_store)
    assert (used, found) == ("pickle", value)


def test_a_function_and_an_object_of_a_local_class_come_back(folder_store: ArtifactStore) -> None:
    class Doubler:
        def __init__(self, by: int) -> None:
            self.by = by

        def __call__(self, number: int) -> int:
            return number * self.by

    double = Doubler(2)
    _, (found, closure) = there_and_back((double, lambda number: double(number) + 1), folder_store)
    assert (found(4), closure(4)) == (8, 9)


def test_a_model_of_scikit_learn_predicts_the_same(folder_store: ArtifactStore) -> None:
    features = np.random.default_rng(0).random((50, 3))
    model = LogisticRegression().fit(features, features[:, 0] > 0.5)
    used, found = there_and_back(model, folder_store)
    assert used == "pickle"
    assert np.array_equal(found.predict_proba(features), model.predict_proba(features))


def assert_arrays_equal(found: Any, value: Any) -> None:
    assert (type(found), found.dtype, found.shape) == (type(value), value.dtype, value.shape)
    assert found.tobytes() == value.tobytes()


RECORD = np.dtype([("id", "<i4"), ("name", "U3"), ("point", ">f8", (2,))])
ARRAYS: dict[str, Any] = {
    "0-d": np.array(3.5),
    "empty": np.zeros((0, 3), "i2"),
    "empty in the middle": np.zeros((2, 0, 3)),
    "Fortran order": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "every second": np.arange(10)[::2],
    "backwards": np.arange(10)[::-1],
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "one value over and over": np.broadcast_to(np.int8(3), (2, 4)),
    "big-endian": np.arange(3, dtype=">u2"),
    "floats": np.array([np.nan, -0.0, np.inf]),
    "long double": np.array([1], np.longdouble),
    "text": np.array(["é", ""]),
    "bytes": np.array([b"a\0b", b""]),
    "dates": np.array(["2026-03-01", "NaT"], "M8[25s]"),
    "structured": np.array([(1, "é", (0.5, 1)), (2, "", (0, 0))], RECORD),
    "padded": np.zeros(3, np.dtype({"names": ["a", "b"], "formats": ["i1", "i8"], "offsets": [0, 16], "itemsize": 32})),
    "3000 fields": np.ones(2, [(f"field{number}", "i1") for number in range(3000)]),
    "raw": np.zeros(3, "V5"),
}


@pytest.mark.parametrize("value", ARRAYS.values(), ids=ARRAYS.keys())
def test_an_array_comes_back_bit_for_bit_and_can_be_written_to(value: Any, folder_store: ArtifactStore) -> None:
    used, found = there_and_back(value, folder_store)
    assert used == "numpy"
    assert_arrays_equal(found, value)
    assert found.flags.writeable
    if value.flags.f_contiguous:
        assert found.flags.f_contiguous


@given(value=hnp.arrays(hnp.array_dtypes() | hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
@same_store
def test_any_array_comes_back_bit_for_bit(value: Any, folder_store: ArtifactStore) -> None:
    used, found = there_and_back(value, folder_store)
    assert used == "numpy"
    assert_arrays_equal(found, value)


@pytest.mark.parametrize(
    "value",
    [np.array([1, None, "x"], object), np.ma.array([1, 2], mask=[0, 1]), np.rec.array([(1, 2.0)])],
    ids=["objects", "masked", "records"],
)
def test_arrays_that_are_more_than_memory_are_pickled(value: Any, folder_store: ArtifactStore) -> None:
    used, found = there_and_back(value, folder_store)
    assert (used, type(found), found.dtype, found.tolist()) == ("pickle", type(value), value.dtype, value.tolist())


def with_attrs(frame: pd.DataFrame) -> pd.DataFrame:
    frame.attrs = {"source": "survey", "years": [2024, 2025]}
    return frame


def frame(index: Any = None, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns or {"a": [1, 2]}, index=index)


HALF_PAST = datetime.timezone(datetime.timedelta(hours=1, minutes=30))
FRAMES: dict[str, tuple[str, pd.DataFrame]] = {
    "plain": ("pandas", frame(z=[1, 2], a=[1.5, None], s=["é", None], b=[True, False])),
    "floats": ("pandas", frame(f=[np.nan, -0.0, np.inf])),
    "widths": ("pandas", frame(u=np.uint64([2**64 - 1]), i=np.int8([-1]), f=np.float16([0.5]))),
    "nullable": ("pandas", frame(i=pd.array([1, None], "Int64"), b=pd.array([True, None], "boolean"))),
    "NaN and NA": ("pandas", frame(f=pd.array([0.5, None], "Float32"), s=pd.array(["a", None], "string"))),
    "of Arrow": ("pandas", frame(a=pd.array([1, None], "int64[pyarrow]"))),
    "lists of Arrow": ("pickle", frame(a=pd.array([[1]], pd.ArrowDtype(pa.list_(pa.int64()))))),
    "bytes": ("pandas", frame(b=[b"\0", b""])),
    "objects": ("pickle", frame(o=pd.Series([1, "a", None], dtype=object))),
    "lists": ("pickle", frame(o=[[1], [2]])),
    "dates": ("pickle", frame(o=[datetime.date(2026, 3, 1)])),
    "seconds": ("pickle", frame(t=np.array(["2026-03-01"], "M8[s]"))),
    "milliseconds": ("pandas", frame(t=np.array(["2026-03-01", "NaT"], "M8[ms]"), d=np.array([1, 2], "m8[us]"))),
    "zones": ("pandas", frame(t=pd.to_datetime(["2026-03-01", None]).tz_localize("Europe/Berlin"))),
    "UTC": ("pandas", frame(t=pd.to_datetime(["2026-03-01"]).tz_localize(datetime.UTC))),
    "offset": ("pandas", frame(t=pd.to_datetime(["2026-03-01"]).tz_localize(HALF_PAST))),
    "zone of dateutil": ("pickle", frame(t=pd.to_datetime(["2026-03-01"]).tz_localize("dateutil/Europe/Berlin"))),
    "offset in seconds": (
        "pickle",
        frame(t=pd.to_datetime(["2026-03-01"]).tz_localize(datetime.timezone(datetime.timedelta(seconds=5)))),
    ),
    "categories": ("pandas", frame(c=pd.Categorical(["a", None], ["b", "a", "unused"], ordered=True))),
    "categories alone": ("pickle", frame(c=pd.Categorical([], pd.Index(["b", "a"], dtype="str")))),
    "numbers as categories": ("pickle", frame(c=pd.Categorical([3, 1]))),
    "periods": ("pickle", frame(p=pd.period_range("2026-01", periods=2, freq="M"))),
    "sparse": ("pickle", frame(s=pd.arrays.SparseArray([0, 1]))),
    "no rows": ("pandas", frame(a=np.zeros(0, "i4"), s=pd.Series([], dtype="str"))),
    "nothing": ("pickle", pd.DataFrame()),
    "no columns": ("pickle", pd.DataFrame(index=[1, 2])),
    "attributes": ("pandas", with_attrs(frame())),
    "numbered columns": ("pickle", pd.DataFrame([[1, 2]])),
    "columns twice": ("pickle", pd.DataFrame([[1, 2]], columns=["a", "a"])),
    "columns with a name": ("pickle", pd.DataFrame([[1]], columns=pd.Index(["a"], name="n"))),
    "columns of two levels": ("pickle", pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", 1)]))),
    "odd names": ("pandas", pd.DataFrame([[1, 2, 3]], [7], ["", "é\0\n", "__index_level_0__"])),
    "range": ("pandas", frame(pd.RangeIndex(9, 5, -2, name="r"))),
    "index of text": ("pandas", frame(["a", None])),
    "index twice": ("pandas", frame(pd.Index([1, 1], dtype="int8", name="a"))),
    "index of floats": ("pandas", frame(pd.Index([0.5, np.nan], dtype="float32"))),
    "index of times": ("pandas", frame(pd.date_range("2026", periods=2, freq="BME", tz="Europe/Berlin", name="t"))),
    "index of categories": ("pandas", frame(pd.CategoricalIndex(["a", "b"], ["b", "a"]))),
    "nullable index": ("pickle", frame(pd.array([1, None], "Int64"))),
    "index of strings": ("pickle", frame(pd.array(["a", None], "string"))),
    "two levels": ("pandas", frame(pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", None]))),
    "one level": ("pickle", frame(pd.MultiIndex.from_arrays([[1, 2]], names=["x"]))),
    "levels with gaps": ("pickle", frame(pd.MultiIndex.from_tuples([("a", 1), (None, 2)]))),
}


@pytest.mark.parametrize(("materializer", "value"), FRAMES.values(), ids=FRAMES.keys())
def test_a_frame_of_pandas_comes_back_exactly(
    materializer: str, value: pd.DataFrame, folder_store: ArtifactStore
) -> None:
    used, found = there_and_back(value, folder_store)
    assert used == materializer
    pd.testing.assert_frame_equal(found, value, check_exact=True, check_column_type=True, check_freq=True)
    assert (found.dtypes.tolist(), found.attrs, found.index.dtype) == (
        value.dtypes.tolist(),
        value.attrs,
        value.index.dtype,
    )


WRITABLE = {name: value for name, (used, value) in FRAMES.items() if used == "pandas" and len(value) > 1}


@pytest.mark.parametrize("value", WRITABLE.values(), ids=WRITABLE.keys())
def test_every_column_of_a_frame_that_comes_back_can_be_written_to(
    value: pd.DataFrame, folder_store: ArtifactStore
) -> None:
    _, found = there_and_back(value, folder_store)
    for number in range(found.shape[1]):
        found.iloc[0, number] = found.iloc[1, number]
        first, second = found.iloc[:2, number].array[:1], found.iloc[:2, number].array[1:]
        assert pd.Series(first).equals(pd.Series(second))


@pytest.mark.parametrize("rows", [3, 20_000_000], ids=["one row group", "several row groups"])
def test_a_short_and_a_long_frame_that_come_back_can_be_written_to(rows: int, folder_store: ArtifactStore) -> None:
    value = pd.DataFrame({"a": np.zeros(rows, "i4"), "c": pd.Categorical.from_codes(np.zeros(rows, "i1"), ["b", "a"])})
    _, found = there_and_back(value, folder_store)
    assert found.dtypes.equals(value.dtypes)
    found.loc[1, "a"] = 7
    assert found["a"].sum() == 7


SERIES: dict[str, tuple[str, pd.Series[Any]]] = {
    "named": ("pandas", pd.Series([1, 2], name="x")),
    "nameless": ("pandas", pd.Series([0.5, None])),
    "with times": ("pandas", pd.Series([1, 2], pd.date_range("2026", periods=2), name="")),
    "with an index of its name": ("pandas", pd.Series(["a"], pd.Index([3], name="value"), name="value")),
    "with a number as its name": ("pickle", pd.Series([1], name=3)),
    "no rows": ("pandas", pd.Series([], dtype="f4")),
}


@pytest.mark.parametrize(("materializer", "value"), SERIES.values(), ids=SERIES.keys())
def test_a_series_of_pandas_comes_back_exactly(
    materializer: str, value: pd.Series[Any], folder_store: ArtifactStore
) -> None:
    used, found = there_and_back(value, folder_store)
    assert used == materializer
    pd.testing.assert_series_equal(found, value, check_exact=True, check_freq=True)


POLARS: list[pl.DataFrame] = [
    pl.DataFrame({"z": [1, None], "s": ["é", None], "l": [[1, 2], None], "r": [{"k": 1}, None]}),
    pl.DataFrame({"c": pl.Series(["a", None], dtype=pl.Categorical), "e": pl.Series(["a"] * 2, dtype=pl.Enum("ba"))}),
    pl.DataFrame({"t": pl.Series([datetime.datetime(2026, 3, 1)], dtype=pl.Datetime("ms", "Europe/Berlin"))}),
    pl.DataFrame({"d": [datetime.date(2026, 3, 1)], "t": [datetime.time(1)], "u": [datetime.timedelta(1)], "b": [b""]}),
    pl.DataFrame({"d": pl.Series(["1.5"]).cast(pl.Decimal(10, 2)), "u": pl.Series([2**64 - 1], dtype=pl.UInt64)}),
    pl.DataFrame({"a": pl.Series([[1, 2]], dtype=pl.Array(pl.Int16, 2)), "n": [None]}),
    pl.DataFrame({"f": [math.nan, -0.0, math.inf]}),
    pl.DataFrame({"no": pl.Series([], dtype=pl.Int8)}),
    pl.DataFrame(),
]


@pytest.mark.parametrize("value", POLARS, ids=lambda value: str(value.schema)[8:60])
def test_a_frame_of_polars_comes_back_exactly(value: pl.DataFrame, folder_store: ArtifactStore) -> None:
    used, found = there_and_back(value, folder_store)
    assert used == "polars"
    assert found.schema == value.schema
    assert_polars_equal(found, value, check_exact=True, categorical_as_str=True)


@pytest.mark.parametrize("value", [pl.Series("x", [1, None]), pl.Series("", [], pl.String)])
def test_a_series_of_polars_comes_back_exactly(value: pl.Series, folder_store: ArtifactStore) -> None:
    used, found = there_and_back(value, folder_store)
    assert used == "polars"
    assert_polars_series_equal(found, value, check_exact=True)


FIELD = pa.field("a", pa.float64(), nullable=False, metadata={"unit": "m"})
ARROW: dict[str, tuple[str, Any]] = {
    "nested": ("arrow", pa.table({"i": [1, None], "l": [[1], None], "r": [{"k": "x"}, None], "i2": [True, None]})),
    "chunks": ("arrow", pa.table({"a": pa.chunked_array([[1], [2, 3]])})),
    "metadata": ("arrow", pa.table([[0.5]], schema=pa.schema([FIELD], metadata={"source": "survey"}))),
    "dictionary": ("arrow", pa.table({"a": pa.array(["x"], pa.dictionary(pa.int8(), pa.string()))})),
    "dictionary of numbers": ("pickle", pa.table({"a": pa.array([1, 2]).dictionary_encode()})),
    "seconds": ("pickle", pa.table({"t": pa.array([1], pa.timestamp("s"))})),
    "zone": ("arrow", pa.table({"t": pa.array([1, None], pa.timestamp("ns", "Europe/Berlin"))})),
    "columns twice": ("arrow", pa.table([[1], ["x"]], names=["a", "a"])),
    "no rows": ("arrow", pa.table({"a": pa.array([], pa.decimal128(5, 2))})),
    "nothing": ("arrow", pa.table({})),
}


@pytest.mark.parametrize(("materializer", "value"), ARROW.values(), ids=ARROW.keys())
def test_a_table_of_arrow_comes_back_with_its_schema(
    materializer: str, value: Any, folder_store: ArtifactStore
) -> None:
    used, found = there_and_back(value, folder_store)
    assert used == materializer
    assert found.schema.equals(value.schema, check_metadata=True)
    assert found.equals(value)


class Locked:
    """Cannot be pickled."""

    def __reduce__(self) -> str:
        raise TypeError("is locked")


def test_a_value_that_cannot_be_saved_is_refused_by_type_and_uri(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match=r"test_values\.Locked .*/model\.pkl .*'pickle'.*is locked") as raised:
        artifacts.save(Locked(), store, f"{store.root}/model")
    assert f"{store.root}/model.pkl" in str(raised.value)
    assert store.list(store.root) == []


def test_a_plan_of_polars_is_refused_with_advice(folder_store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match=r"return value\.collect\(\)"):
        artifacts.save(pl.LazyFrame({"a": [1]}), folder_store, f"{folder_store.root}/value")
    assert folder_store.list(folder_store.root) == []
