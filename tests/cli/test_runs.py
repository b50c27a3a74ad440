"""Commands that look at a run which has ended."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airflow_stepops.artifacts.values import save
from tests.cli.conftest import Stepops
from tests.past_run import STATES, PastRun, copied


def uri_of(stepops: Stepops, past: PastRun, task: str, name: str = "return_value") -> str:
    found = stepops("artifacts", "list", "past", past.run_id, "--json").json()
    return str(next(row["uri"] for row in found if (row["task_id"], row["name"]) == (task, name)))


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


def test_runs_are_listed(stepops: Stepops, past_run: PastRun) -> None:
    (run,) = stepops("runs list --json").json()
    assert (run["dag_id"], run["run_id"], run["state"]) == ("past", past_run.run_id, "failed")
    assert run["states"] == {"succeeded": 7, "failed": 5}
    heading, row = rows(stepops("runs list").out)
    assert heading == ["DAG", "RUN", "STATE", "STEPS", "BEGAN"]
    assert row[:4] == ["past", past_run.run_id, "failed", "5 failed, 7 succeeded"]
    assert stepops("runs list --dag other --json").json() == []


def test_a_run_is_described_as_a_table_with_outputs_and_errors_below(stepops: Stepops, past_run: PastRun) -> None:
    said = stepops("runs", "describe", "past", past_run.run_id)
    lines = rows(said.out)
    assert lines[0] == ["step", "state", "ran in", "image", "waited", "ran"]
    table = {line[0]: line for line in lines[1:] if line[0] in STATES}
    assert {label: line[1].partition(",")[0] for label, line in table.items()} == STATES
    assert table["flaky"][1] == "succeeded, try 2"
    assert table["square[0]"][2] == "local job"
    assert table["square[0]"][3].startswith("sha256:")
    assert table["numbers"][2:5] == ["worker", "–", "–"]
    assert table["without_image"][2:] == ["local", "–", "–", "–"]
    for below in (
        "    return_value: [1, 2]\n",
        "    grid: numpy.ndarray, 176 bytes, arrays/-1/",
        "    ValueError: the rate is negative\n",
        "    user_code: exit code 3; there is no result at ",
        "    invalid_request: secret TOKEN='env:NO_SUCH_TOKEN'",
    ):
        assert below in said.out
    assert re.search(r"^1 image; uploaded 4 blobs, \d+\.\d MB$", said.out, re.MULTILINE)
    assert said.out.endswith(f"Run {past_run.run_id} of past: failed\n")


def test_a_run_is_described_as_json(stepops: Stepops, past_run: PastRun) -> None:
    run = stepops("runs", "describe", "past", past_run.run_id, "--json").json()
    steps = {(step["task_id"], step["map_index"]): step for step in run["steps"]}
    square = steps["square", 1]
    assert (square["state"], square["where"], square["step_operator"]) == ("succeeded", "local", "local")
    assert square["outputs"]["return_value"]["value"] == 4
    assert square["metadata"] == {"number": 2}
    assert square["submitted_at"] < square["started_at"] <= square["ended_at"]
    assert "value" not in steps["arrays", -1]["outputs"]["grid"]
    assert [attempt["state"] for attempt in steps["flaky", -1]["earlier"]] == ["failed"]
    assert "rate is negative" in steps["broken", -1]["error"]["traceback"]


def test_what_cannot_be_read_is_said_beside_what_can(
    stepops: Stepops, past_run: PastRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copied(past_run, tmp_path, monkeypatch)
    uri = next(uri for uri in store.list(store.root) if "/table/" in uri and uri.endswith("result.json"))
    store.put(uri, b"[]")
    said = stepops("runs", "describe", "past", past_run.run_id)
    assert said.code == 0
    assert said.err == f"warning: {uri}: job result: must be an object, not list.\n"
    assert "table            unknown" in said.out


def test_jobs_are_listed_one_for_each_that_was_launched(stepops: Stepops, past_run: PastRun) -> None:
    jobs = stepops("jobs list --json").json()
    found = sorted((job["task_id"], job["map_index"], job["try_number"], job["state"]) for job in jobs)
    assert found == [
        ("broken", -1, 1, "failed"),
        ("dies", -1, 1, "failed"),
        ("flaky", -1, 1, "failed"),
        ("flaky", -1, 2, "succeeded"),
        ("long_text", -1, 1, "succeeded"),
        ("square", 0, 1, "succeeded"),
        ("square", 1, 1, "succeeded"),
    ]
    assert len({job["job_name"] for job in jobs}) == 7
    assert stepops("jobs list --running --json").json() == []
    assert len(rows(stepops("jobs list").out)) == 8


def test_the_log_of_an_attempt_is_printed(stepops: Stepops, past_run: PastRun) -> None:
    where = ("past", past_run.run_id)
    assert stepops("logs", *where, "square", "--map-index", "1").out == "squaring 2\n"
    assert stepops("logs", *where, "flaky").out == "the second try is about to succeed\n"
    first = stepops("logs", *where, "flaky", "--try", "1").out.splitlines()
    assert first[0] == "the first try is about to fail"
    assert first[-1] == "ConnectionError: the first try fails"
    assert stepops("logs", *where, "flaky", "--follow").out == "the second try is about to succeed\n"


def test_outputs_are_listed(stepops: Stepops, past_run: PastRun) -> None:
    lines = rows(stepops("artifacts", "list", "past", past_run.run_id).out)
    assert lines[0] == ["STEP", "OUTPUT", "TYPE", "SIZE", "URI"]
    listed = {(line[0], line[1]): line[2] for line in lines[1:]}
    assert listed["arrays", "price"] == "decimal.Decimal"
    assert listed["square[0]", "return_value"] == "int"
    assert len(listed) == 8


def test_json_is_shown_pretty_and_cut(stepops: Stepops, past_run: PastRun) -> None:
    said = stepops("artifacts", "show", uri_of(stepops, past_run, "long_text"))
    assert re.search(r"^type: +builtins\.list$", said.out, re.MULTILINE)
    assert said.out.count('  "a line of text",\n') == 99
    assert said.out.endswith("… 2902 more lines\n")
    shown = stepops("artifacts", "show", uri_of(stepops, past_run, "long_text"), "--json").json()
    assert shown["preview"]["value"] == ["a line of text"] * 3000


def test_a_table_is_shown_by_its_columns_and_first_rows(stepops: Stepops, past_run: PastRun) -> None:
    uri = uri_of(stepops, past_run, "table")
    said = stepops("artifacts", "show", uri)
    assert ["square", "int64"] in rows(said.out)
    assert "2 rows; the first 2:" in said.out
    assert ["4", "row 4"] in rows(said.out)
    preview = stepops("artifacts", "show", uri, "--json").json()["preview"]
    assert (preview["rows"], preview["head"][0]) == (2, {"square": 1, "name": "row 1"})


def test_an_array_is_shown_by_its_shape_and_first_numbers(stepops: Stepops, past_run: PastRun) -> None:
    said = stepops("artifacts", "show", uri_of(stepops, past_run, "arrays", "grid"))
    assert "array of float64, shape (2, 3); the first 6:\n0.0, 1.0, 2.0, 3.0, 4.0, 5.0\n" in said.out


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.file,)


def test_a_pickle_is_shown_without_loading_it(
    stepops: Stepops, past_run: PastRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copied(past_run, tmp_path, monkeypatch)
    result = next(uri for uri in store.list(store.root) if "/arrays/" in uri and uri.endswith("result.json"))
    trapped = save(Trap(tmp_path / "sprung"), store, result.replace("result.json", "outputs/price"))
    document = json.loads(store.get(result))
    document["outputs"]["price"] = trapped.serialize()
    store.put(result, json.dumps(document).encode())
    said = stepops("artifacts", "show", trapped.uri)
    assert re.search(r"^type: +tests\.cli\.test_runs\.Trap$", said.out, re.MULTILINE)
    assert f"blake3:        {trapped.blake3}" in said.out
    assert "No preview: it is a pickle" in said.out
    assert not (tmp_path / "sprung").exists()
    trapped.load()
    assert (tmp_path / "sprung").exists()


def test_a_value_that_was_changed_is_not_shown(
    stepops: Stepops, past_run: PastRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copied(past_run, tmp_path, monkeypatch)
    old = uri_of(stepops, past_run, "long_text")
    uri = old.replace(past_run.store.root, store.root)
    result = f"{uri.partition('/outputs/')[0]}/result.json"
    store.put(result, store.get(result).replace(old.encode(), uri.encode()))
    assert stepops("artifacts", "show", uri).code == 0
    store.put(uri, b"[]")
    said = stepops("artifacts", "show", uri)
    assert (said.code, said.out) == (1, "")
    assert f"{uri} has changed since it was saved" in said.err


def test_to_cancel_a_run_that_has_ended_does_nothing(stepops: Stepops, past_run: PastRun) -> None:
    said = stepops("cancel", "past", past_run.run_id)
    assert (said.code, said.out) == (0, "There is nothing to stop: all jobs have ended.\n")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("runs describe past RUN0", "has no run 'RUN0' of the DAG 'past'. The nearest: 'RUN'."),
        ("runs describe paste RUN", "has no runs of a DAG 'paste'. The nearest: 'past'."),
        ("runs list --stack locl", "'locl'. Did you mean 'local'?"),
        ("runs list --limit 0", "0 is not in the range"),
        ("runs lst", "there is no command 'lst'. Did you mean 'list'?"),
        ("logs past RUN tabel", "Did you mean 'table'?"),
        ("logs past RUN square", "has the indexes 0-1: give the index of one."),
        ("logs past RUN square --map-index 5", "there is none with index 5."),
        ("logs past RUN flaky --try 3", "has no attempt 3. It has: 1, 2."),
        ("logs past RUN table", "ran in the worker, it has no job: its log is the task's"),
        ("logs past RUN refused", "ended before it had a job: secret TOKEN='env:NO_SUCH_TOKEN'"),
        ("cancel past RUN tabel", "Did you mean 'table'?"),
        ("cancel past RUN table", "has no job, the worker runs it"),
        ("cancel past RUN --map-index 1", "--map-index needs a TASK_ID."),
        ("artifacts list past RUN0", "The nearest: 'RUN'."),
        ("artifacts show s3://elsewhere/value.json", "is in no artifact store of the stack file. There are: file://"),
        ("artifacts show ROOT/value.json", "is no output or input of a step"),
        ("artifacts show GRID.old", "no step has left or been given this. Did you mean 'GRID'?"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest_and_exit_code_2(
    stepops: Stepops, past_run: PastRun, command: str, said: str
) -> None:
    names = {
        "GRID": uri_of(stepops, past_run, "arrays", "grid"),
        "ROOT": past_run.store.root,
        "RUN": past_run.run_id,
    }

    def filled(text: str) -> str:
        for name, value in names.items():
            text = text.replace(name, value)
        return text

    failed = stepops(*filled(command).split())
    assert (failed.code, failed.out) == (2, "")
    assert filled(said) in failed.err
    assert failed.err.count("\n") == 1
