"""What ``stepops prune`` takes away, and what it leaves."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests.cli.conftest import Stepops

DAY = 24 * 3600.0


@pytest.fixture
def values(stepops: Stepops, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the active stack's artifact store."""
    monkeypatch.setenv("STEPOPS_HOME", str(folder / "home"))
    stepops("artifact-store", "update", "local", "--path", str(folder / "values"))
    return folder / "values"


def write(path: Path, days_ago: float, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - days_ago * DAY,) * 2)
    return path


def attempt(values: Path, run: str, *, days_ago: float, outputs: dict[str, bool]) -> Path:
    """Write an attempt's folder.

    :param outputs: name → whether the result refers to it.
    """
    place = values / "runs" / "flights" / run / "train" / "-1" / "attempt-1"
    for name in outputs:
        write(place / "outputs" / name, days_ago)
    named = {name: {"uri": f"{place.as_uri()}/outputs/{name}"} for name, is_named in outputs.items() if is_named}
    write(place / "result.json", days_ago, json.dumps({"outputs": named}))
    return place


def test_what_is_old_or_orphaned_is_shown_and_stays_until_yes_is_said(stepops: Stepops, values: Path) -> None:
    old = attempt(values, "old", days_ago=40, outputs={"model": True})
    new = attempt(values, "new", days_ago=2, outputs={"model": True, "half": False})
    shown = stepops("prune")
    assert (shown.code, "Nothing is deleted without --yes." in shown.out) == (0, True)
    assert (old / "outputs" / "model").exists() and (new / "outputs" / "half").exists()
    found = stepops("prune --json").json()
    assert found["deleted"] is False
    assert [(row["what"], row["objects"]) for row in found["found"]] == [("run", 2), ("orphaned artifact", 1)]
    assert stepops("prune --yes").code == 0
    assert not (old / "outputs" / "model").exists() and not (old / "result.json").exists()
    assert not (new / "outputs" / "half").exists()
    assert (new / "outputs" / "model").exists() and (new / "result.json").exists()
    assert stepops("prune").out.endswith("There is nothing to delete.\n")


def test_a_run_that_still_writes_and_outputs_that_are_being_saved_stay(stepops: Stepops, values: Path) -> None:
    begun = attempt(values, "long", days_ago=40, outputs={"first": True})
    write(begun.parent / "attempt-2" / "outputs" / "second", 0.5)
    assert stepops("prune --json").json()["found"] == []


def test_the_outputs_of_an_attempt_without_a_result_are_orphans(stepops: Stepops, values: Path) -> None:
    place = attempt(values, "new", days_ago=2, outputs={"model": False})
    (place / "result.json").unlink()
    (row,) = stepops("prune --json").json()["found"]
    assert row["place"] == f"{place.as_uri()}/outputs/model"


def test_caches_that_nobody_has_used_go(stepops: Stepops, values: Path, folder: Path) -> None:
    cache = folder / "home" / "cache" / "layers"
    write(cache / "unused" / "file", 1)
    os.utime(cache / "unused", (time.time() - 40 * DAY,) * 2)
    write(cache / "used" / "file", 1)
    write(folder / "home" / "local-runs" / "2026-01-01T00-00-00-x" / "log", 1)
    os.utime(folder / "home" / "local-runs" / "2026-01-01T00-00-00-x", (time.time() - 40 * DAY,) * 2)
    assert stepops("prune --yes --older-than 35d").code == 0
    assert os.listdir(cache) == ["used"]
    assert os.listdir(folder / "home" / "local-runs") == []


def test_whatever_is_left_in_the_caches_is_shown_and_goes(stepops: Stepops, values: Path, folder: Path) -> None:
    cache = folder / "home" / "cache"
    old = [
        write(cache / "packed" / "old.tar.gz", 1),
        cache / "packed" / ".unpacked-x",
        cache / "packed" / "killed.unfinished",
        write(cache / "bases" / ".writing-x", 1),
        write(cache / "engine" / "stepops-base-x.lock", 1),
        cache / "uv" / "wheels",
        cache / "bytecode" / "usr",
        cache / "layers" / "killed.unfinished",
    ]
    write(cache / "packed" / "old.json", 1, "{}")
    write(cache / "packed" / "old.lock", 1)
    for path in [path for path in old if not path.exists()]:
        write(path / "inner" / "file", 1).parent.chmod(0o555)
    (cache / "layers" / "broken").symlink_to("nowhere")
    for path in cache.glob("*/*"):
        os.utime(path, (time.time() - 40 * DAY,) * 2, follow_symlinks=False)
    used = write(cache / "packed" / "used.tar.gz", 1)
    found = stepops("prune --json").json()["found"]
    assert {row["place"] for row in found} == {str(path) for path in [*old, cache / "layers" / "broken"]}
    assert all(path.exists() for path in old)
    assert stepops("prune --yes").code == 0
    assert list(cache.glob("*/*")) == [used]


def test_a_cache_in_use_is_neither_shown_nor_deleted(stepops: Stepops, values: Path, folder: Path) -> None:
    layer = write(folder / "home" / "cache" / "layers" / "used" / "file", 40).parent
    os.utime(layer, (time.time() - 40 * DAY,) * 2)
    with FileLock(layer.with_name("used.lock")):
        assert stepops("prune --json --yes").json()["found"] == []
        assert layer.exists()
    assert len(stepops("prune --json --yes").json()["found"]) == 1
    assert not layer.exists()


def test_blobs_that_a_killed_build_did_not_finish_go(stepops: Stepops, values: Path, folder: Path) -> None:
    blobs = folder / "home" / "images" / "blobs" / "sha256"
    left, young = write(blobs / ".writing-left", 2), write(blobs / ".writing-young", 0)
    (row,) = stepops("prune --json --yes").json()["found"]
    assert (row["what"], row["place"]) == ("unfinished blob", str(left))
    assert not left.exists()
    assert young.exists()


@pytest.mark.parametrize("given", ["1h", "soon", "-3d"])
def test_an_age_that_makes_no_sense_is_refused(stepops: Stepops, values: Path, given: str) -> None:
    said = stepops("prune", f"--older-than={given}")
    assert said.code == 2
    assert repr(given) in said.err
    assert said.err.count("\n") == 1
