"""What comes out of the artifact store is what went in, or nothing; no code of a stranger runs on the way."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_stepops.artifacts import ArtifactReference
from airflow_stepops.artifacts import values as artifacts
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import ArtifactError, ArtifactNotFoundError, IntegrityError, SpecError

KINDS: dict[str, Any] = {
    "json": {"a": [1, 2.5, None]},
    "pickle": (1, "two"),
    "numpy": np.arange(100.0),
    "pandas": pd.DataFrame({"a": [1.5, None], "s": ["x", "y"]}),
    "polars": pl.DataFrame({"a": [1, 2]}),
}
by_kind = pytest.mark.parametrize("value", KINDS.values(), ids=KINDS.keys())
same_store = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Intruder:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.trace, "was here")


def save(value: Any, store: ArtifactStore) -> ArtifactReference:
    return artifacts.save(value, store, f"{store.root}/value")


def assert_refused(reference: ArtifactReference, store: ArtifactStore) -> None:
    with pytest.raises(IntegrityError, match="has changed since it was saved") as raised:
        artifacts.load(reference, store)
    assert reference.uri in str(raised.value)
    assert reference.blake3 in str(raised.value)


@by_kind
@given(data=st.data())
@same_store
def test_one_flipped_bit_anywhere_is_refused(value: Any, data: st.DataObject, store: ArtifactStore) -> None:
    reference = save(value, store)
    content = bytearray(store.get(reference.uri))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    store.put(reference.uri, bytes(content))
    assert_refused(reference, store)


@by_kind
@given(data=st.data())
@same_store
def test_a_truncated_or_longer_object_is_refused(value: Any, data: st.DataObject, store: ArtifactStore) -> None:
    reference = save(value, store)
    content = store.get(reference.uri)
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    store.put(reference.uri, data.draw(st.sampled_from([cut, content + b"\0", content + content, b""])))
    assert_refused(reference, store)


def test_a_large_array_with_one_flipped_bit_is_refused(store: ArtifactStore) -> None:
    reference = save(np.zeros(20_000_000, "u1"), store)
    content = bytearray(store.get(reference.uri))
    content[-1] ^= 1
    store.put(reference.uri, bytes(content))
    assert_refused(reference, store)


def test_a_pickle_that_was_put_in_the_place_of_another_never_runs(store: ArtifactStore, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    reference = save(("a", "model"), store)
    store.put(reference.uri, pickle.dumps(Intruder(trace)))
    assert_refused(reference, store)
    with pytest.raises(IntegrityError):
        reference.load()
    assert not trace.exists()


def test_the_pickle_of_these_tests_does_run_when_it_is_what_was_saved(store: ArtifactStore, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    artifacts.load(save(Intruder(trace), store), store)
    assert trace.read_text() == "was here"


@pytest.mark.parametrize("kind", ["json", "numpy", "pandas", "polars"])
def test_a_pickle_in_the_place_of_data_never_runs(kind: str, store: ArtifactStore, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    reference = save(KINDS[kind], store)
    store.put(reference.uri, pickle.dumps(Intruder(trace)))
    assert_refused(reference, store)
    assert not trace.exists()


def test_an_array_of_objects_in_the_place_of_another_never_runs(store: ArtifactStore, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    reference = save(np.zeros(3), store)
    with (tmp_path / "array.npy").open("wb") as file:
        np.save(file, np.array([Intruder(trace)], object), allow_pickle=True)
    store.put(reference.uri, (tmp_path / "array.npy").read_bytes())
    assert_refused(reference, store)
    assert not trace.exists()


@by_kind
def test_a_reference_with_another_digest_is_refused(value: Any, store: ArtifactStore) -> None:
    reference = save(value, store)
    assert_refused(dataclasses.replace(reference, blake3="0" * 64), store)


@by_kind
def test_a_reference_to_another_object_is_refused(value: Any, store: ArtifactStore) -> None:
    reference = save(value, store)
    other = artifacts.save([value, 1], store, f"{store.root}/other")
    assert_refused(dataclasses.replace(reference, uri=other.uri), store)


def test_an_object_that_is_gone_is_said(store: ArtifactStore) -> None:
    reference = save([1], store)
    store.delete(reference.uri)
    with pytest.raises(ArtifactNotFoundError, match=f"there is nothing at {reference.uri}"):
        artifacts.load(reference, store)


def test_an_object_on_a_disk_that_fails_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path.as_uri())
    reference = save([1], store)
    path = store.local_path(reference.uri)
    assert path is not None
    path.unlink()
    path.symlink_to("/proc/self/mem")
    with pytest.raises(ArtifactError, match=f"{reference.uri} could not be read: Input/output error"):
        artifacts.load(reference, store)


REFERENCE = ArtifactReference("s3://bucket/value.json", "json", "builtins.list", "0" * 64, 3, {"rows": 1})
FIELDS = sorted(REFERENCE.serialize())
TYPES = {"uri": str, "materializer": str, "type": str, "blake3": str, "size": int, "metadata": dict}
JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.just({})


@given(
    reference=st.builds(
        ArtifactReference,
        *[st.text()] * 4,
        size=st.integers(),
        metadata=st.dictionaries(st.text(), st.integers() | st.lists(st.text())),
    )
)
def test_a_reference_comes_back_from_its_json(reference: ArtifactReference) -> None:
    assert ArtifactReference.deserialize(json.loads(json.dumps(reference.serialize()))) == reference


@given(missing=st.sets(st.sampled_from(FIELDS)), unknown=st.dictionaries(st.text(), JSON, max_size=3))
def test_a_reference_with_missing_or_unknown_fields_is_refused(missing: set[str], unknown: dict[str, Any]) -> None:
    document = {name: value for name, value in REFERENCE.serialize().items() if name not in missing}
    document |= {name: value for name, value in unknown.items() if name not in FIELDS}
    if set(document) == set(FIELDS):
        assert ArtifactReference.deserialize(document) == REFERENCE
        return
    with pytest.raises(SpecError, match="missing or unknown fields") as raised:
        ArtifactReference.deserialize(document)
    assert str(sorted(set(document) ^ set(FIELDS))) in str(raised.value)


@given(field=st.sampled_from(FIELDS), value=JSON)
def test_a_reference_with_a_field_of_another_type_is_refused(field: str, value: Any) -> None:
    document = {**REFERENCE.serialize(), field: value}
    if type(value) is TYPES[field]:
        assert ArtifactReference.deserialize(document).serialize() == document
        return
    with pytest.raises(SpecError, match=f"{field}=.* must be {TYPES[field].__name__}"):
        ArtifactReference.deserialize(document)


@given(version=st.integers(min_value=2))
def test_a_reference_of_a_newer_version_asks_for_an_upgrade(version: int) -> None:
    with pytest.raises(SpecError, match=f"has version {version}; .* upgrade it here"):
        ArtifactReference.deserialize(REFERENCE.serialize(), version)


@given(document=JSON | st.lists(st.text()))
def test_what_is_not_a_reference_at_all_is_refused(document: Any) -> None:
    with pytest.raises(SpecError):
        ArtifactReference.deserialize(document)
