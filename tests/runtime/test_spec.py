"""The job spec and the values in it: what comes back as it was, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.errors import SpecError
from airflow_stepops.runtime.spec import (
    Attempt,
    JobSpec,
    StepSource,
    decode_value,
    encode_value,
    spec_uri,
    spec_variables,
)

SPEC = JobSpec(
    attempt=Attempt("churn", "manual__1", "train", -1, 1, "instance", "ti-1"),
    step=StepSource("dag_file.py", "dag_file", "train", "0" * 64),
    root="file:///store",
    directory="file:///store/runs/churn/manual__1/train/-1/attempt-1",
    args=[1, {"$tuple": [2, 3]}],
    kwargs={"rate": 0.1},
    outputs=["model", "score"],
    checkpoints="file:///store/runs/churn/manual__1/train/-1/checkpoints",
    environment={"MODE": "fast"},
    secrets={"TOKEN": "env:TOKEN"},
    timeout=60,
)
FIELDS = [field.name for field in dataclasses.fields(JobSpec)]
REQUIRED = ["attempt", "step", "root", "directory"]

texts = st.text(max_size=20)
#: The names with which values are marked in a spec are names like any other to a user.
keys = texts | st.sampled_from(["$artifact", "$tuple", "$value"])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
references = st.builds(
    ArtifactReference, texts, texts, texts, texts, st.integers(), st.dictionaries(texts, scalars, max_size=3)
)


def nested(leaves: st.SearchStrategy[Any], *, tuples: bool) -> st.SearchStrategy[Any]:
    def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        items = st.lists(inner, max_size=4)
        containers = items | st.dictionaries(keys, inner, max_size=4)
        return containers | items.map(tuple) if tuples else containers

    return st.recursive(leaves, around, max_leaves=12)


arguments = nested(scalars | references, tuples=True)
json_values = nested(scalars | st.just(float("nan")), tuples=False)
attempts = st.builds(Attempt, texts, texts, texts, st.integers(), st.integers())
specs = st.builds(
    JobSpec,
    attempt=attempts,
    step=st.builds(StepSource, texts, texts, texts, texts),
    root=texts,
    directory=texts,
    args=st.lists(arguments.map(encode_value), max_size=4),
    kwargs=st.dictionaries(keys, arguments.map(encode_value), max_size=4),
    outputs=st.none() | st.lists(texts, max_size=4),
    checkpoints=texts,
    environment=st.dictionaries(texts, texts, max_size=4),
    secrets=st.dictionaries(texts, texts, max_size=4),
    timeout=st.none() | st.integers(),
)


def shape(value: Any) -> Any:
    """Tell apart what Python calls equal: ``True`` and ``1``, ``0.0`` and ``-0.0``."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (type(value), [shape(item) for item in value])
    return (type(value), repr(value))


@given(arguments)
def test_an_argument_comes_back_as_it_was(value: Any) -> None:
    assert shape(decode_value(json.loads(json.dumps(encode_value(value))))) == shape(value)


@given(json_values)
def test_any_json_in_the_place_of_an_argument_is_decoded_or_refused(value: Any) -> None:
    try:
        decode_value(value)
    except SpecError as error:
        assert str(error).startswith("artifact reference: ")


@given(specs)
def test_a_spec_comes_back_from_its_json(spec: JobSpec) -> None:
    assert shape(dataclasses.asdict(JobSpec.from_json(spec.to_json()))) == shape(dataclasses.asdict(spec))
    assert JobSpec.from_json(spec.to_json()).to_json() == spec.to_json()


@given(specs, st.integers(), texts)
def test_two_tries_of_the_same_work_have_the_same_digest(spec: JobSpec, try_number: int, directory: str) -> None:
    again = dataclasses.replace(
        spec, attempt=dataclasses.replace(spec.attempt, try_number=try_number), directory=directory
    )
    assert again.digest() == spec.digest()


@given(references, texts)
def test_an_input_is_known_by_its_content_and_not_by_its_place(reference: ArtifactReference, place: str) -> None:
    def digest(value: Any) -> str:
        return dataclasses.replace(
            SPEC, args=[encode_value([value])], kwargs={"$artifact": encode_value(value)}
        ).digest()

    assert digest(dataclasses.replace(reference, uri=place)) == digest(reference)
    assert digest(dataclasses.replace(reference, blake3=f"{reference.blake3}0")) != digest(reference)


@given(arguments, arguments)
def test_other_arguments_make_another_digest(one: Any, other: Any) -> None:
    def digest(value: Any) -> str:
        return dataclasses.replace(SPEC, args=[encode_value(value)]).digest()

    def content(value: Any) -> Any:
        if isinstance(value, ArtifactReference):
            return (ArtifactReference, value.blake3)
        if isinstance(value, dict):
            return {key: content(item) for key, item in value.items()}
        return (type(value), [content(item) for item in value]) if isinstance(value, (list, tuple)) else shape(value)

    assert (digest(one) == digest(other)) == (content(one) == content(other))


@pytest.mark.parametrize(
    "change",
    [
        {"step": dataclasses.replace(SPEC.step, digest="1" * 64)},
        {"environment": {}},
        {"secrets": {}},
        {"outputs": None},
    ],
)
def test_other_work_has_another_digest(change: dict[str, Any]) -> None:
    assert dataclasses.replace(SPEC, **change).digest() != SPEC.digest()


def test_how_long_a_step_may_run_is_not_part_of_the_work() -> None:
    assert dataclasses.replace(SPEC, timeout=None).digest() == SPEC.digest()


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_no_spec_are_refused(data: bytes) -> None:
    with pytest.raises(SpecError, match=r"^job spec: "):
        JobSpec.from_json(data)


@given(st.integers(min_value=0, max_value=len(SPEC.to_json()) - 1))
def test_a_truncated_spec_is_refused(length: int) -> None:
    with pytest.raises(SpecError, match=r"^job spec: not JSON"):
        JobSpec.from_json(SPEC.to_json()[:length])


@given(st.sampled_from(FIELDS), json_values)
def test_a_spec_with_any_value_in_a_field_is_read_or_refused_by_name(field: str, value: Any) -> None:
    document = {**json.loads(SPEC.to_json()), field: value}
    try:
        spec = JobSpec.from_json(json.dumps(document).encode())
    except SpecError as error:
        assert str(error).startswith("job spec: ")
        assert field in str(error)
    else:
        assert shape(getattr(spec, field)) == shape(value)


@pytest.mark.parametrize("field", FIELDS)
def test_only_what_has_a_default_may_be_left_out(field: str) -> None:
    document = json.loads(SPEC.to_json())
    del document[field]
    data = json.dumps(document).encode()
    if field in REQUIRED:
        with pytest.raises(SpecError, match=rf"^job spec: .*{field}"):
            JobSpec.from_json(data)
    else:
        assert JobSpec.from_json(data) != SPEC


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 1}, "job spec: version 1 is not 2: another release of airflow-stepops wrote it"),
        ({"version": 1.0}, "job spec: version 1.0 is not 2"),
        ({"queue": "fast"}, "job spec: unknown field 'queue'."),
        ({"timeout": True}, "job spec: timeout=True must be int | None."),
        ({"outputs": ["model", 3]}, "job spec: outputs=['model', 3] must be list[str] | None."),
        ({"environment": {"MODE": None}}, "job spec: environment={'MODE': None} must be dict[str, str]."),
        ({"args": {}}, "job spec: args={} must be list[Any]."),
        ({"attempt": {"dag_id": "churn"}}, "job spec: attempt: field 'run_id' is missing."),
        ({"step": "dag_file.py"}, "job spec: step: must be an object, not str."),
    ],
)
def test_a_wrong_field_is_named_with_what_it_must_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as refused:
        JobSpec.from_json(json.dumps({**json.loads(SPEC.to_json()), **change}).encode())
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("opening", [b"[", b'{"version":'])
def test_json_that_is_nested_without_end_is_refused(opening: bytes) -> None:
    with pytest.raises(SpecError, match=r"^job spec: not JSON"):
        JobSpec.from_json(opening * 100_000)


def test_an_error_does_not_repeat_a_large_value() -> None:
    document = {**json.loads(SPEC.to_json()), "timeout": "x" * 1_000_000}
    with pytest.raises(SpecError) as refused:
        JobSpec.from_json(json.dumps(document).encode())
    assert len(str(refused.value)) < 200


@given(st.text(min_size=1, max_size=40), st.integers(1, 12))
def test_a_uri_longer_than_a_variable_may_be_comes_in_pieces(uri: str, longest: int) -> None:
    variables = spec_variables(uri, longest)
    assert all(len(piece) <= longest for piece in variables.values())
    assert spec_uri({"OTHER": "x", **variables}) == uri
    assert next(iter(variables)) == "STEPOPS_SPEC"
