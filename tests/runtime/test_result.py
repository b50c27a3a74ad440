"""The job result: what comes back as it was, and what is no proof of anything."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_stepops.artifacts.materializers.json import is_json
from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import SpecError
from airflow_stepops.runtime.result import FAILED, STOPPED, SUCCEEDED, JobResult, StepError
from airflow_stepops.runtime.spec import Attempt
from tests.runtime.test_spec import attempts, json_values, nested, references, scalars, shape, texts

ATTEMPT = Attempt("churn", "manual__1", "train", -1, 1, "instance", "ti-1")
REFERENCE = ArtifactReference("file:///store/a.json", "json", "dict", "0" * 64, 2)
RESULT = JobResult(
    attempt=ATTEMPT,
    status=FAILED,
    outputs={"model": REFERENCE},
    values={"model": {}},
    metadata={"rows": 3},
    error=StepError("ValueError", "bad rate", "Traceback …"),
    started_at=1.5,
    ended_at=2.5,
)
FIELDS = [field.name for field in dataclasses.fields(JobResult)]

plain_values = nested(scalars, tuples=False).filter(is_json)
results = st.builds(
    JobResult,
    attempt=attempts,
    status=st.sampled_from([SUCCEEDED, FAILED, STOPPED]),
    outputs=st.dictionaries(texts, references, max_size=3),
    values=st.dictionaries(texts, plain_values, max_size=3),
    metadata=st.dictionaries(texts, plain_values, max_size=3),
    error=st.none() | st.builds(StepError, texts, texts, texts),
    started_at=st.floats(0, 4e9),
    ended_at=st.floats(0, 4e9),
)


def changed(**fields: Any) -> bytes:
    """Return the JSON of a valid result with other values in its fields."""
    return json.dumps({**json.loads(RESULT.to_json()), **fields}).encode()


@given(results)
def test_a_result_comes_back_from_its_json(result: JobResult) -> None:
    found = JobResult.from_json(result.to_json(), result.attempt)
    assert shape(dataclasses.asdict(found)) == shape(dataclasses.asdict(result))
    assert found == result


@given(results, attempts)
def test_the_result_of_another_attempt_is_refused(result: JobResult, attempt: Attempt) -> None:
    assume(attempt != result.attempt)
    with pytest.raises(SpecError, match=r"^job result: is of Attempt"):
        JobResult.from_json(result.to_json(), attempt)


@pytest.mark.parametrize(
    "other", [{"try_number": 2}, {"map_index": 0}, {"task_id": "test"}, {"run_id": "manual__2"}, {"dag_id": "other"}]
)
def test_a_result_that_was_copied_from_a_near_attempt_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"^job result: is of Attempt"):
        JobResult.from_json(RESULT.to_json(), dataclasses.replace(ATTEMPT, **other))


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_no_result_are_refused(data: bytes) -> None:
    with pytest.raises(SpecError, match=r"^job result: "):
        JobResult.from_json(data, ATTEMPT)


@given(st.integers(min_value=0, max_value=len(RESULT.to_json()) - 1))
def test_a_truncated_result_is_refused(length: int) -> None:
    with pytest.raises(SpecError, match=r"^job result: not JSON"):
        JobResult.from_json(RESULT.to_json()[:length], ATTEMPT)


@given(st.sampled_from(FIELDS), json_values)
def test_a_result_with_any_value_in_a_field_is_read_or_refused_by_name(field: str, value: Any) -> None:
    try:
        result = JobResult.from_json(changed(**{field: value}), ATTEMPT)
    except SpecError as error:
        assert str(error).startswith("job result: ")
        assert field in str(error)
    else:
        assert shape(getattr(result, field)) == shape(value)


@given(st.sampled_from([field.name for field in dataclasses.fields(ArtifactReference)]), json_values)
def test_a_reference_with_any_value_in_a_field_is_read_or_refused_by_name(field: str, value: Any) -> None:
    outputs = {"model": {**REFERENCE.serialize(), field: value}}
    try:
        result = JobResult.from_json(changed(outputs=outputs), ATTEMPT)
    except SpecError as error:
        assert str(error).startswith(f"job result: outputs['model']: artifact reference: {field}=")
    else:
        assert shape(getattr(result.outputs["model"], field)) == shape(value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 1}, "version 1 is not 2"),
        ({"status": "done"}, "status='done' is unknown."),
        ({"status": None}, "status=None is unknown."),
        ({"exit_code": 0}, "unknown field 'exit_code'."),
        ({"outputs": []}, "outputs must be an object of references."),
        ({"outputs": {"model": "file:///store/a.json"}}, "outputs['model']: must be a reference, not str."),
        ({"outputs": {"model": {}}}, "outputs['model']: artifact reference: missing or unknown fields"),
        ({"values": [1]}, "values=[1] must be dict[str, Any]."),
        ({"error": {"type": "ValueError", "message": "bad"}}, "error: field 'traceback' is missing."),
        ({"error": {**dataclasses.asdict(StepError("", "", "")), "type": 3}}, "error: type=3 must be str."),
        ({"started_at": "now"}, "started_at='now' must be float."),
        ({"attempt": []}, "attempt: must be an object, not list."),
        ({"attempt": {**dataclasses.asdict(ATTEMPT), "try_number": True}}, "attempt: try_number=True must be int."),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as refused:
        JobResult.from_json(changed(**change), ATTEMPT)
    assert str(refused.value).startswith(f"job result: {said}")


@pytest.mark.parametrize(
    "uri",
    [
        "file:///store-of-another/a.json",
        "file:///store",
        "file:///store/../etc/passwd",
        "file:///store//a.json",
        "s3://store/a.json",
        "/store/a.json",
        "",
    ],
)
def test_an_output_outside_of_the_store_is_refused_by_name(uri: str) -> None:
    store = ArtifactStore("file:///store")
    assert RESULT.within(store) is RESULT
    forged = dataclasses.replace(RESULT, outputs={"model": dataclasses.replace(REFERENCE, uri=uri)})
    read = JobResult.from_json(forged.to_json(), ATTEMPT)
    with pytest.raises(SpecError, match=r"^job result: outputs\['model'\]: .* is no object under the artifact store"):
        read.within(store)


@pytest.mark.parametrize("time", [-1, 1e300, float("nan"), float("inf"), 10**4000])
def test_a_time_that_no_calendar_has_is_refused(time: float) -> None:
    with pytest.raises(SpecError, match=r"^job result: ended_at=.* must be a Unix time"):
        JobResult.from_json(changed(ended_at=time), ATTEMPT)


def test_a_status_alone_is_enough_and_nothing_is_not() -> None:
    attempt = dataclasses.asdict(ATTEMPT)
    assert JobResult.from_json(
        json.dumps({"version": 2, "attempt": attempt, "status": SUCCEEDED}).encode(), ATTEMPT
    ) == JobResult(ATTEMPT, SUCCEEDED)
    with pytest.raises(SpecError, match="job result: status=None is unknown"):
        JobResult.from_json(json.dumps({"version": 2, "attempt": attempt}).encode(), ATTEMPT)
