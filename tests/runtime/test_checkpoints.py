"""Checkpoints: what a step writes into its folder is there for its next attempt."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops import checkpoint_dir
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import SpecError
from airflow_stepops.runtime.call import run_step
from airflow_stepops.runtime.checkpoints import read_manifest
from airflow_stepops.runtime.result import JobResult
from airflow_stepops.runtime.spec import Attempt, JobSpec, StepSource
from tests.runtime.conftest import StepImage

COUNTING = """\
    import os
    import time
    from airflow_stepops import checkpoint_dir

    def count(limit):
        file = checkpoint_dir() / "number"
        number = int(file.read_text()) if file.exists() else 0
        print(f"begins at {number}", flush=True)
        while number < limit:
            number += 1
            (file.parent / "new").write_text(str(number))
            os.replace(file.parent / "new", file)
            if number % 10 == 0 and number < limit:
                print("waiting", flush=True)
                time.sleep(60)
        return number
"""


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri())


def spec(store: ArtifactStore, number: int) -> JobSpec:
    """Return the spec of an attempt of one task."""
    task = f"{store.root}/runs/churn/manual__1/train/-1"
    return JobSpec(
        Attempt("churn", "manual__1", "train", -1, number, "instance", f"ti-{number}"),
        StepSource("steps.py", "steps", "train", ""),
        store.root,
        f"{task}/attempt-{number}",
        checkpoints=f"{task}/checkpoints",
    )


def attempt(store: ArtifactStore, number: int, function: Any) -> JobResult:
    return run_step(function, spec(store, number), store)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def saved(store: ArtifactStore) -> list[str]:
    uris = [uri for uri in store.list(f"{store.root}/runs") if "/checkpoints/" in uri]
    return [uri for uri in uris if not uri.endswith("/begun")]


def fails_after(files: dict[str, bytes], seen: list[dict[str, bytes]] | None = None) -> Any:
    def step() -> None:
        folder = checkpoint_dir()
        if seen is not None:
            seen.append(tree(folder))
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        raise RuntimeError("no more")

    return step


def test_what_a_failed_attempt_left_is_there_for_the_next_one(store: ArtifactStore) -> None:
    seen: list[dict[str, bytes]] = []
    first = {"epoch/1": b"one", "epoch/2": b"two", "state": b"2"}
    assert attempt(store, 1, fails_after(first, seen)).status == "failed"
    assert attempt(store, 2, fails_after({"state": b"3"}, seen)).status == "failed"
    assert attempt(store, 3, fails_after({}, seen)).status == "failed"
    assert seen == [{}, first, {**first, "state": b"3"}]


def test_a_file_that_did_not_change_is_not_copied_again(store: ArtifactStore) -> None:
    attempt(store, 1, fails_after({"large": b"x" * 1000, "small": b"1"}))
    attempt(store, 2, fails_after({"small": b"2"}))
    sizes = [store.size(uri) for uri in saved(store) if not uri.endswith("manifest.json")]
    assert sorted(sizes) == [1, 1, 1000]


def test_a_step_that_succeeds_leaves_no_checkpoints_and_begins_anew_when_it_is_cleared(store: ArtifactStore) -> None:
    attempt(store, 1, fails_after({"state": b"1"}))

    def step() -> list[str]:
        return sorted(tree(checkpoint_dir()))

    assert attempt(store, 2, step).values == {"return_value": ["state"]}
    assert [uri.rpartition("/")[2] for uri in saved(store)] == ["manifest.json"]
    assert attempt(store, 3, step).values == {"return_value": []}


def test_an_attempt_that_is_later_does_not_begin_with_what_a_later_one_left(store: ArtifactStore) -> None:
    attempt(store, 2, fails_after({"state": b"2"}))
    seen: list[dict[str, bytes]] = []
    attempt(store, 1, fails_after({}, seen))
    assert seen == [{}]


def test_a_changed_byte_in_the_store_is_an_error_that_names_the_object(store: ArtifactStore) -> None:
    attempt(store, 1, fails_after({"state": b"intact"}))
    (uri,) = [uri for uri in saved(store) if not uri.endswith("manifest.json")]
    store.put(uri, b"intakt")
    result = attempt(store, 2, fails_after({}))
    assert result.error is not None
    assert result.error.type.endswith("IntegrityError")
    assert uri in result.error.message


def test_a_step_without_checkpoints_writes_nothing(store: ArtifactStore) -> None:
    attempt(store, 1, lambda: 1)
    assert saved(store) == []


def test_outside_of_a_step_it_is_an_empty_folder() -> None:
    folder = checkpoint_dir()
    assert tree(folder) == {}
    folder.rmdir()


def test_what_cannot_be_saved_is_said_and_the_step_s_own_error_is_kept(
    store: ArtifactStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def step() -> None:
        (checkpoint_dir() / "state").write_text("1")
        in_the_way = tmp_path / "store" / "runs" / "churn" / "manual__1" / "train" / "-1" / "checkpoints"
        shutil.rmtree(in_the_way)
        in_the_way.write_text("a file")
        raise ValueError("its own")

    result = attempt(store, 1, step)
    assert result.error is not None
    assert result.error.message == "its own"
    assert "the last checkpoints could not be saved" in capsys.readouterr().err


@given(
    files=st.dictionaries(
        st.lists(
            st.text("abc.-_ äß", min_size=1, max_size=8).filter(lambda part: part.strip(".")), min_size=1, max_size=3
        )
        .map("/".join)
        .map(lambda path: f"root/{path}"),
        st.binary(max_size=200),
        max_size=6,
    )
)
def test_whatever_files_there_are_they_come_back(
    files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [name for name in files if not any(other.startswith(f"{name}/") for other in files)]
    files = {name: files[name] for name in names}
    store = ArtifactStore(tmp_path_factory.mktemp("any").as_uri())
    seen: list[dict[str, bytes]] = []
    attempt(store, 1, fails_after(files))
    attempt(store, 2, fails_after({}, seen))
    assert seen == [files]


@pytest.mark.parametrize(
    ("name", "object", "said"),
    [
        ("../escape", f"attempt-1/{'a' * 64}", "no path below a folder"),
        ("/etc/passwd", f"attempt-1/{'a' * 64}", "no path below a folder"),
        ("a/../../b", f"attempt-1/{'a' * 64}", "no path below a folder"),
        ("fine", "../../other/spec.json", "no object of a checkpoint"),
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(name: str, object: str, said: str) -> None:
    document = {"version": 2, "files": {name: {"object": object, "blake3": "a" * 64, "size": 1}}}
    with pytest.raises(SpecError, match=said):
        read_manifest(json.dumps(document).encode(), "s3://bucket/manifest.json")


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(
        lambda value: json.dumps({"version": 2, "files": value}).encode()
    )
)
def test_no_manifest_makes_more_of_itself_than_an_error(data: bytes) -> None:
    try:
        read_manifest(data, "s3://bucket/manifest.json")
    except SpecError as error:
        assert "s3://bucket/manifest.json" in str(error)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_that_is_killed_goes_on_where_it_was(image: StepImage, how: signal.Signals) -> None:
    image.write("dag_file.py", COUNTING)
    task = f"{image.store.root}/runs/churn/manual__1/train/-1"
    first = image.spec("count", 15, checkpoints=f"{task}/checkpoints")
    process = image.start(first.uri)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["begins at 0\n", "waiting\n"]
    deadline = time.monotonic() + 40
    while how is signal.SIGKILL and not saved(image.store):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(how)
    image.finish(process)
    again = image.run("count", 15, checkpoints=f"{task}/checkpoints")
    assert again.stdout.splitlines()[0] == "begins at 10"
    assert again.result is not None
    assert again.result.values == {"return_value": 15}
