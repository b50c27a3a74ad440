"""The ledger's documents: what is read back, what is refused, and who wins a claim."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import EndKind, SpecError
from airflow_stepops.jobs.attempt import attempt_directory, job_name
from airflow_stepops.jobs.ledger import CANCEL, Ledger, LedgerEntry
from airflow_stepops.jobs.protocol import JobState
from airflow_stepops.runtime.spec import Attempt

ATTEMPT = Attempt("churn", "manual__1", "train", -1, 2, "instance", "ti-2")
EARLIER = dataclasses.replace(ATTEMPT, try_number=1, ti_id="ti-1")
ENTRY = LedgerEntry(
    attempt=ATTEMPT,
    directory=attempt_directory("file:///store", EARLIER),
    job_attempt=EARLIER,
    work="0" * 64,
    component={"flavor": "local", "name": "here"},
    job_name=job_name("file:///store", EARLIER),
    job_id="job-1",
    console_url="https://console.example.com/job-1",
    state="running",
)

texts = st.text(max_size=20)
attempts = st.builds(Attempt, texts, texts, texts, st.integers(), st.integers(), texts, texts)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
entries = st.builds(
    LedgerEntry,
    attempts,
    texts,
    attempts,
    texts,
    st.dictionaries(texts, plain_values, max_size=4),
    texts,
    texts,
    texts,
    st.sampled_from(["", *(state.value for state in JobState)]),
    texts,
    st.integers(),
    st.integers(),
    st.floats(0, 4e9),
    st.sampled_from(["", *(kind.value for kind in EndKind)]),
    texts,
    st.floats(0, 4e9),
    st.integers(),
    texts,
)


def at(root: str, entry: LedgerEntry) -> LedgerEntry:
    """Return the entry with a folder and a job of its own, as in a store with this root."""
    job = dataclasses.replace(entry.attempt, try_number=entry.job_attempt.try_number, ti_id=entry.job_attempt.ti_id)
    return dataclasses.replace(
        entry, directory=attempt_directory(root, job), job_attempt=job, job_name=job_name(root, job)
    )


@contextmanager
def ledger_of(attempt: Attempt) -> Iterator[tuple[Ledger, ArtifactStore, str]]:
    """Yield the ledger of an attempt in a store of its own, the store, and the URI of the entry."""
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder).as_uri())
        yield Ledger(store, attempt), store, f"{attempt_directory(store.root, attempt)}/job.json"


@given(entries)
def test_an_entry_comes_back_from_the_store(entry: LedgerEntry) -> None:
    with ledger_of(entry.attempt) as (ledger, store, _):
        assert ledger.read() is None
        entry = at(store.root, entry)
        ledger.record(entry)
        assert ledger.read() == entry


@given(entries)
def test_an_entry_comes_back_from_what_a_trigger_carries(entry: LedgerEntry) -> None:
    carried = json.loads(json.dumps(dataclasses.asdict(entry)))
    assert LedgerEntry.from_document(carried) == entry


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_no_entry_are_refused_with_the_uri(data: bytes) -> None:
    with ledger_of(ATTEMPT) as (ledger, store, uri):
        store.put(uri, data)
        with pytest.raises(SpecError) as refused:
            ledger.read()
        assert str(refused.value).startswith(f"{uri}: ledger: ")


@given(st.sampled_from([field.name for field in dataclasses.fields(LedgerEntry)]), json_values)
def test_an_entry_with_any_value_in_a_field_is_read_or_refused_by_name(field: str, value: Any) -> None:
    with ledger_of(ATTEMPT) as (ledger, store, uri):
        store.put(uri, json.dumps({**json.loads(at(store.root, ENTRY).to_json()), field: value}).encode())
        try:
            entry = ledger.read()
        except SpecError as error:
            assert str(error).startswith(f"{uri}: ledger: ")
            assert field in str(error)
        else:
            assert entry is not None
            assert json.dumps(getattr(entry, field)) == json.dumps(value)


@given(st.integers(min_value=0, max_value=len(ENTRY.to_json()) - 1))
def test_a_truncated_entry_is_refused(length: int) -> None:
    with ledger_of(ATTEMPT) as (ledger, store, uri):
        store.put(uri, ENTRY.to_json()[:length])
        with pytest.raises(SpecError, match="ledger: not JSON"):
            ledger.read()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 1}, "ledger: version 1 is not 2"),
        ({"version": True}, "ledger: version True is not 2"),
        ({"queue": "fast"}, "ledger: unknown field 'queue'"),
        ({"state": "paused"}, "ledger: state='paused' is unknown"),
        ({"end_kind": "bored"}, "ledger: end_kind='bored' is unknown"),
        ({"attempt": dataclasses.asdict(EARLIER)}, "ledger: is of Attempt("),
        ({"attempt": None}, "ledger: attempt: must be an object, not NoneType"),
        ({"job_attempt": {"dag_id": "churn"}}, "ledger: job_attempt: field 'run_id' is missing"),
        ({"component": "local"}, "ledger: component='local' must be dict"),
        ({"directory": "file:///store/runs/other/run/task/-1/i/attempt-1"}, "ledger: directory="),
        ({"job_name": "another-teams-job"}, "ledger: job_name='another-teams-job' must be 'churn-train-1-"),
        (
            {"job_attempt": dataclasses.asdict(dataclasses.replace(EARLIER, instance="other"))},
            "ledger: job_attempt=Attempt(",
        ),
        (
            {"job_attempt": dataclasses.asdict(dataclasses.replace(EARLIER, task_id="other"))},
            "ledger: job_attempt=Attempt(",
        ),
    ],
)
def test_an_entry_of_another_release_or_attempt_is_refused_with_uri_and_field(
    change: dict[str, Any], said: str
) -> None:
    with ledger_of(ATTEMPT) as (ledger, store, uri):
        store.put(uri, json.dumps({**json.loads(at(store.root, ENTRY).to_json()), **change}).encode())
        with pytest.raises(SpecError) as refused:
            ledger.read()
        assert str(refused.value).startswith(f"{uri}: {said}")


def test_the_first_intention_stays_until_it_is_recorded_or_forgotten() -> None:
    with ledger_of(ATTEMPT) as (ledger, store, _):
        entry = at(store.root, ENTRY)
        assert ledger.open(entry) == entry
        other = dataclasses.replace(entry, job_id="another")
        assert ledger.open(other) == entry
        ledger.record(other)
        assert ledger.open(entry) == other
        ledger.forget()
        assert ledger.read() is None
        assert ledger.open(entry) == entry


def test_of_those_who_claim_a_job_at_the_same_time_one_wins_and_stays_the_winner() -> None:
    owners = [CANCEL, "attempt-2 ti-2", "attempt-3 ti-3", "attempt-4 ti-4"]
    for _ in range(20):
        with ledger_of(ATTEMPT) as (ledger, _, _), ThreadPoolExecutor(len(owners)) as threads:
            together = threading.Barrier(len(owners))

            def claim(owner: str, ledger: Ledger = ledger, together: threading.Barrier = together) -> bool:
                together.wait(10)
                return ledger.claim(owner)

            first = list(threads.map(claim, owners))
            assert sum(first) == 1
            assert [ledger.claim(owner) for owner in owners] == first


def test_earlier_attempts_are_those_of_the_same_task_instance_with_a_smaller_number_latest_first() -> None:
    last = dataclasses.replace(ATTEMPT, try_number=5, ti_id="ti-5")
    with ledger_of(last) as (ledger, store, _):
        names = {"map_index": 0}, {"task_id": "train-2"}, {"instance": "of another Airflow"}
        others = [dataclasses.replace(last, try_number=1, **change) for change in names]  # type: ignore[arg-type]
        tries = [dataclasses.replace(last, try_number=number, ti_id=f"ti-{number}") for number in (1, 2, 4, 6)]
        for attempt in (last, *others, *tries):
            Ledger(store, attempt).record(at(store.root, dataclasses.replace(ENTRY, attempt=attempt)))
        assert [entry.attempt.try_number for entry in ledger.earlier()] == [4, 2, 1]
        assert {entry.attempt.instance for entry in ledger.earlier()} == {last.instance}


def test_an_earlier_attempt_that_has_not_written_its_entry_yet_is_told_to_give_up() -> None:
    last = dataclasses.replace(ATTEMPT, try_number=3, ti_id="ti-3")
    with ledger_of(last) as (ledger, store, _):
        assert list(ledger.earlier()) == []
        for attempt in (ATTEMPT, EARLIER):
            assert Ledger(store, attempt).claimant() == CANCEL
        assert ledger.claimant() == ""


def test_a_job_is_claimed_from_the_last_attempt_that_went_on_with_it_even_if_that_has_left_no_entry() -> None:
    with ledger_of(EARLIER) as (ledger, store, _):
        assert ledger.claim_last("attempt-2 ti-2", before=2) == "attempt-2 ti-2"
        assert ledger.claim_last("attempt-4 ti-4", before=4) == "attempt-4 ti-4"
        assert Ledger(store, ATTEMPT).claimant() == "attempt-4 ti-4"
        assert ledger.claim_last("attempt-3 ti-3", before=3) == "attempt-4 ti-4", "a later attempt has it"
        assert ledger.claim_last("attempt-4 other", before=4) == "attempt-4 ti-4", "the same number elsewhere"
        assert ledger.claim_last(CANCEL) == CANCEL
        assert ledger.claim_last("attempt-5 ti-5", before=5) == CANCEL


@given(st.text(max_size=30))
def test_any_claim_ends_a_chain(forged: str) -> None:
    with ledger_of(EARLIER) as (ledger, store, uri):
        store.put(uri.replace("job.json", "claim.json"), forged.encode())
        assert ledger.claim_last("attempt-2 ti-2", before=2) == forged
