"""The client: stacks from the stack file, runs from the artifact store alone."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.client import ArtifactReference, Client, Run
from airflow_stepops.errors import IntegrityError, RunNotFoundError, StackError
from airflow_stepops.jobs.archive import RunArchive
from airflow_stepops.jobs.attempt import attempt_directory
from airflow_stepops.jobs.ledger import Ledger, LedgerEntry
from airflow_stepops.runtime.spec import Attempt, JobSpec, StepSource
from tests.past_run import STATES, PastRun, copied

STACKS = """\
version: 1
active: laptop
artifact_stores: {files: {flavor: local, path: /data/store}}
step_operators: {here: {flavor: local}, there: {flavor: local}}
stacks:
  laptop: {artifact_store: files, container_registry: local, step_operators: [here, there]}
  empty: {artifact_store: files, container_registry: local}
"""


@pytest.fixture
def run(past_run: PastRun) -> Run:
    return Client().get_run(past_run.dag_id, past_run.run_id)


def attempt_of(past: PastRun, task_id: str) -> Attempt:
    """Return the last attempt of a step."""
    return RunArchive(past.store).run(past.dag_id, past.run_id).step(task_id).attempt


def test_the_client_knows_the_stacks_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.yaml"
    file.write_text(STACKS)
    client = Client(file)
    assert [stack.name for stack in client.stacks] == ["empty", "laptop", "local"]
    assert client.active_stack.name == "laptop"
    assert client.active_stack.step_operator.name == "here"
    assert [operator.name for operator in client.active_stack.step_operators] == ["here", "there"]
    assert client.active_stack.artifact_store.root() == "file:///data/store"
    assert client.active_stack.container_registry.flavor == "local"
    assert client.active_stack.image_builder.flavor == "oci"
    with pytest.raises(StackError, match="Did you mean 'laptop'"):
        client.stack("labtop")
    with pytest.raises(StackError, match="stack 'empty' has no step operator: add one"):
        client.stack("empty").step_operator  # noqa: B018
    file.write_text(STACKS.replace("active: laptop", "active: empty"))
    assert client.active_stack.name == "empty"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"none\.yaml: cannot be read"):
        Client(tmp_path / "none.yaml").active_stack  # noqa: B018


def test_runs_are_read_without_airflow(past_run: PastRun) -> None:
    code = (
        "import sys; from airflow_stepops.client import Client; "
        f"print(len(Client().get_run('past', {past_run.run_id!r}).steps), 'airflow' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(len(STATES)), "False"]


def test_a_run_has_the_last_attempt_of_every_step(run: Run, past_run: PastRun) -> None:
    assert {step.label: step.state for step in run.steps} == STATES
    assert (run.dag_id, run.run_id, run.state) == ("past", past_run.run_id, "failed")
    assert run.problems == ()
    began, ended = (datetime.fromtimestamp(at, UTC) for at in (past_run.began, past_run.ended))
    assert began <= run.began_at <= ended
    for step in run.steps:
        times = [at for at in (step.submitted_at, step.started_at, step.ended_at) if at]
        assert times == sorted(times), step.label
        assert all(began <= at <= ended for at in (step.began_at, *times)), step.label


def test_steps_are_in_the_order_in_which_they_began(run: Run) -> None:
    labels = [step.label for step in run.steps]
    assert labels.index("numbers") < labels.index("square[0]") < labels.index("square[1]") < labels.index("table")
    assert labels.index("square[1]") - labels.index("square[0]") == 1


def test_a_job_is_told_with_its_operator_image_and_upload(run: Run) -> None:
    step = run.step("square", 1)
    assert (step.where, step.step_operator, step.map_index, step.try_number) == ("local", "local", 1, 1)
    assert step.job_name == step.job_id
    assert step.job_name.startswith("past-square-1-")
    assert step.console_url.endswith(f"/jobs/{step.job_id}")
    assert step.image.endswith(step.image_digest)
    assert step.image_digest.startswith("sha256:")
    assert step.metadata == {"number": 2}
    jobs = [attempt for step in run.steps for attempt in step.attempts if attempt.image]
    assert sum(job.uploaded_blobs > 0 for job in jobs) == 1, "one job uploaded the image for all"
    assert sum(job.uploaded_bytes for job in jobs) > 1_000_000


def test_a_step_in_the_worker_has_no_job(run: Run) -> None:
    step = run.step("numbers")
    assert (step.where, step.step_operator, step.job_name, step.image, step.submitted_at) == (
        "worker",
        "",
        "",
        "",
        None,
    )
    assert step.state == "succeeded"


def test_a_retried_step_has_all_its_attempts(run: Run) -> None:
    step = run.step("flaky")
    assert [(attempt.try_number, attempt.state) for attempt in step.attempts] == [(1, "failed"), (2, "succeeded")]
    first, last = step.attempts
    assert first.error is not None
    assert (first.error.type, first.error.message) == ("ConnectionError", "the first try fails")
    assert last.error is None
    assert first.job_name != last.job_name


def test_an_exception_comes_with_its_traceback(run: Run) -> None:
    for task, kind, line in (
        ("broken", "ValueError", 'raise ValueError("the rate is negative")'),
        ("fails_in_worker", "KeyError", 'raise KeyError("missing")'),
    ):
        error = run.step(task).error
        assert error is not None
        assert error.type == kind
        assert line in error.traceback


@pytest.mark.parametrize(
    ("task", "kind", "reason"),
    [
        ("dies", "user_code", "exit code 3"),
        ("refused", "invalid_request", "NO_SUCH_TOKEN is not set"),
        ("without_image", "image", "RequirementsError: the requirements (gone @"),
    ],
)
def test_an_end_without_a_result_has_its_kind_and_reason(run: Run, task: str, kind: str, reason: str) -> None:
    error = run.step(task).error
    assert error is not None
    assert error.type == kind
    assert reason in error.message


def test_outputs_are_small_values_or_references_and_can_be_loaded(run: Run) -> None:
    assert run.step("square", 1).outputs == {"return_value": 4}
    assert run.step("square", 1).load() == 4
    text = run.step("long_text")
    assert isinstance(text.output(), ArtifactReference)
    assert text.load() == ["a line of text"] * 3000
    arrays = run.step("arrays")
    assert list(arrays.outputs) == ["grid", "price"]
    assert arrays.load("grid").tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert arrays.load("price") == Decimal("1.50")
    assert run.step("table").load()["square"].tolist() == [1, 4]


def test_an_output_that_was_changed_is_not_loaded(
    past_run: PastRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPOPS_HOME", str(past_run.home))
    reference = Client().get_run("past", past_run.run_id).step("long_text").references["return_value"]
    store = copied(past_run, tmp_path, monkeypatch)
    moved = dataclasses.replace(reference, uri=reference.uri.replace(past_run.store.root, store.root))
    step = dataclasses.replace(
        Client().get_run("past", past_run.run_id).step("long_text"), references={"return_value": moved}
    )
    assert len(step.load()) == 3000
    store.put(moved.uri, store.get(moved.uri).replace(b"line", b"lime"))
    with pytest.raises(IntegrityError, match="has changed since it was saved"):
        step.load()


@pytest.mark.parametrize(
    ("task", "index", "said"),
    [
        ("tabel", None, r"no step 'tabel' that has begun\. Did you mean 'table'\? It has: .*numbers"),
        ("square", None, "has the indexes 0-1: give the index of one"),
        ("square", 2, "has the indexes 0-1: there is none with index 2"),
    ],
)
def test_a_step_that_is_not_there_is_answered_with_those_that_are(
    run: Run, task: str, index: int | None, said: str
) -> None:
    with pytest.raises(RunNotFoundError, match=said):
        run.step(task, index)


def test_an_output_that_is_not_there_is_answered_with_those_that_are(run: Run) -> None:
    with pytest.raises(RunNotFoundError, match=r"has no output 'prise'\. Did you mean 'price'\? It has: grid, price"):
        run.step("arrays").load("prise")
    with pytest.raises(RunNotFoundError, match=r"step 'broken' \(failed\) has no output 'return_value'\. It has: none"):
        run.step("broken").output()


def test_a_run_that_is_not_there_is_answered_with_the_nearest(past_run: PastRun) -> None:
    with pytest.raises(RunNotFoundError) as no_run:
        Client().get_run("past", f"{past_run.run_id}0")
    assert f"The nearest: {past_run.run_id!r}." in str(no_run.value)
    with pytest.raises(RunNotFoundError) as no_dag:
        Client().get_run("pasta", past_run.run_id)
    assert "has no runs of a DAG 'pasta'. The nearest: 'past'." in str(no_dag.value)


def test_in_an_empty_store_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPOPS_HOME", str(tmp_path))
    assert Client().runs() == []
    with pytest.raises(RunNotFoundError, match=r"has no runs of a DAG 'past'\. It has no runs"):
        Client().get_run("past", "manual__1")


def begin(
    store: ArtifactStore, dag_id: str, run_id: str, task_id: str = "train", try_number: int = 1, map_index: int = -1
) -> Attempt:
    """Write the spec of an attempt, as the worker does."""
    attempt = Attempt(dag_id, run_id, task_id, map_index, try_number, "instance", f"ti-{try_number}")
    source = StepSource("dag.py", "dag", task_id, "0" * 64)
    spec = JobSpec(attempt, source, store.root, attempt_directory(store.root, attempt))
    store.put(spec.uri, spec.to_json())
    return attempt


def test_the_latest_runs_come_first_and_can_be_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPOPS_HOME", str(tmp_path))
    store = Client().active_stack.artifact_store.open()
    names = [("a", "z"), ("b", "scheduled__2020/01"), ("a", "m" * 200), ("a", "b")]
    for second, (dag_id, run_id) in enumerate(names):
        file = store.local_path(f"{attempt_directory(store.root, begin(store, dag_id, run_id))}/spec.json")
        assert file is not None
        os.utime(file, (second, second))  # file systems tell times in steps of milliseconds
    assert [(run.dag_id, run.run_id) for run in Client().runs()] == names[::-1]
    assert [run.run_id for run in Client().runs("a", limit=2)] == ["b", "m" * 200]
    assert Client().get_run("b", "scheduled__2020/01").dag_id == "b"


names = st.text(min_size=1, max_size=80)


@given(names, names, names, st.integers(-1, 10**6), st.integers(1, 10**6))
def test_ids_of_any_text_come_back(dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder).as_uri())
        attempt = begin(store, dag_id, run_id, task_id, try_number, map_index)
        begin(store, f"{dag_id}-", run_id)
        begin(store, dag_id, f"{run_id}-")
        run = RunArchive(store).run(dag_id, run_id)
        assert [step.attempt for step in run.steps] == [attempt]
        assert run.problems == ()
        assert sorted(run.run_id for run in RunArchive(store).runs(dag_id)) == sorted([run_id, f"{run_id}-"])


def test_a_worker_that_left_nothing_is_unknown_and_its_run_may_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPOPS_HOME", str(tmp_path))
    begin(Client().active_stack.artifact_store.open(), "a", "1")
    run = Client().get_run("a", "1")
    assert (run.step("train").state, run.state) == ("unknown", "running")


@pytest.mark.parametrize("document", ["job.json", "result.json"])
def test_a_broken_document_is_named_and_hides_neither_steps_nor_runs(
    past_run: PastRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    store = copied(past_run, tmp_path, monkeypatch)
    uri = f"{attempt_directory(store.root, attempt_of(past_run, 'long_text'))}/{document}"
    store.put(uri, store.get(uri)[:-10])
    begin(store, "another", "run")
    runs = {run.dag_id: run for run in Client().runs()}
    assert [problem.partition(": ")[0] for problem in runs["past"].problems] == [uri]
    assert {step.label: step.state for step in runs["past"].steps if step.task_id != "long_text"} == {
        label: state for label, state in STATES.items() if label != "long_text"
    }
    assert len(runs["another"].steps) == 1


def test_a_run_of_which_something_cannot_be_read_is_not_called_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPOPS_HOME", str(tmp_path))
    store = Client().active_stack.artifact_store.open()
    store.put(f"{attempt_directory(store.root, begin(store, 'a', '1'))}/spec.json", b"{}")
    run = Client().get_run("a", "1")
    assert (run.dag_id, run.run_id, run.steps, run.state) == ("a", "1", (), "unknown")


def test_a_document_of_another_attempt_is_a_problem(
    past_run: PastRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copied(past_run, tmp_path, monkeypatch)
    there, other = (attempt_directory(store.root, attempt_of(past_run, task)) for task in ("dies", "broken"))
    store.put(f"{there}/job.json", store.get(f"{other}/job.json"))
    problems = Client().get_run("past", past_run.run_id).problems
    assert len(problems) == 1
    assert problems[0].startswith(f"{there}: is of Attempt(")


def test_a_job_that_a_later_attempt_went_on_with_has_one_result_for_both(
    past_run: PastRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copied(past_run, tmp_path, monkeypatch)
    directory = attempt_directory(store.root, attempt_of(past_run, "long_text"))
    entry = LedgerEntry.from_json(store.get(f"{directory}/job.json"))
    second = dataclasses.replace(entry.attempt, try_number=2, ti_id="ti-2")
    Ledger(store, second).record(dataclasses.replace(entry, attempt=second))
    step = Client().get_run("past", past_run.run_id).step("long_text")
    assert [attempt.state for attempt in step.attempts] == ["succeeded", "succeeded"]
    assert len({attempt.job_name for attempt in step.attempts}) == 1
    assert list(step.references) == ["return_value"]


@pytest.mark.parametrize(
    ("state", "shown"), [("", "pending"), ("pending", "pending"), ("running", "running"), ("succeeded", "failed")]
)
def test_without_a_result_the_ledger_tells_the_state_but_never_success(
    past_run: PastRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, shown: str
) -> None:
    store = copied(past_run, tmp_path, monkeypatch)
    uri = f"{attempt_directory(store.root, attempt_of(past_run, 'long_text'))}/"
    store.delete(f"{uri}result.json")
    store.put(f"{uri}job.json", json.dumps({**json.loads(store.get(f"{uri}job.json")), "state": state}).encode())
    assert Client().get_run("past", past_run.run_id).step("long_text").state == shown
