"""A worker whose home folders are missing or cannot be written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stranger import UID, as_stranger

BUILD = ["-m", "tests.images.builds", "project", "images"]


@pytest.fixture
def folder(strangers_folder: Path) -> Path:
    """A folder with a project, for a user without a home."""
    (strangers_folder / "project").mkdir()
    (strangers_folder / "project" / "steps.py").write_text("ANSWER = 42\n")
    return strangers_folder


def homes(folder: Path) -> dict[str, dict[str, str]]:
    """Return environments of which none has a home that can be written."""
    locked = folder / "locked"
    locked.mkdir(exist_ok=True)
    (folder / "file").touch()
    return {
        "none": {},
        "nonexistent": {"HOME": "/nonexistent"},
        "airflow": {"AIRFLOW_HOME": str(locked)},
        "stepops": {"STEPOPS_HOME": str(locked)},
        "file": {"STEPOPS_HOME": str(folder / "file")},
    }


@pytest.mark.parametrize("kind", ["none", "nonexistent", "airflow", "stepops", "file"])
def test_a_build_goes_on_with_a_private_temporary_cache(folder: Path, kind: str) -> None:
    done = as_stranger(BUILD, folder, **homes(folder)[kind])
    cache = folder / f"stepops-{UID}"
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(cache / "layers")
    assert cache.stat().st_mode & 0o777 == 0o700
    assert list((cache / "uv" / "wheels").glob("archive-*/*/idna"))
    assert done.stderr.count(f"caches are in {cache}") == 1
    assert "Set STEPOPS_HOME" in done.stderr
    assert not (folder / "~").exists()


def test_what_another_user_made_in_the_home_is_no_place_to_write(folder: Path) -> None:
    (folder / "home" / "cache" / "packed").mkdir(parents=True)
    for path in (folder / "home", folder / "home" / "cache"):
        os.chown(path, UID, UID)
    done = as_stranger(BUILD, folder, STEPOPS_HOME=str(folder / "home"))
    assert done.returncode == 0, done.stderr
    assert f"{folder}/home/cache/packed cannot be written: Permission denied" in done.stderr


def _of_another(place: Path) -> None:
    place.mkdir(mode=0o700)


def _open_to_all(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    os.chown(place, UID, UID)


def _a_link(place: Path) -> None:
    target = place.with_name("target")
    target.mkdir(mode=0o700)
    os.chown(target, UID, UID)
    place.symlink_to(target)


def _a_file(place: Path) -> None:
    place.touch()


@pytest.mark.parametrize("plant", [_of_another, _open_to_all, _a_link, _a_file])
def test_nobody_can_plant_layers(folder: Path, plant: Callable[[Path], None]) -> None:
    place = folder / f"stepops-{UID}"
    plant(place)
    done = as_stranger(BUILD, folder)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("airflow_stepops.errors.ConfigurationError: there is no place for caches: ")
    assert f"{place} (of user" in last
    assert "Set STEPOPS_HOME" in last


#: Tries all that has to stay, and prints an error a line.
WRITE = """
from pathlib import Path
from types import SimpleNamespace

from airflow_stepops.cli.local_airflow import local_airflow
from airflow_stepops.clouds.local.artifact_store import LocalArtifactStore
from airflow_stepops.clouds.local.container_registry import LocalContainerRegistry
from airflow_stepops.clouds.local.step_operator import LocalStepOperator
from airflow_stepops.images.registry.blobs import BytesBlob

def value():
    store = LocalArtifactStore(name="local", path=None)
    store.open().put(store.root() + "/x", b"x")

def image():
    LocalContainerRegistry(name="local", path=None).open().put_blob(BytesBlob.of(b"x"))

def job():
    LocalStepOperator(name="local").connect().submit(SimpleNamespace(name="job", secrets={}))

def run():
    with local_airflow(Path.cwd()):
        pass

for write in (value, image, job, run):
    try:
        write()
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("kind", ["none", "nonexistent", "airflow", "stepops"])
def test_what_has_to_stay_names_its_folder_and_what_to_set(folder: Path, kind: str) -> None:
    done = as_stranger(["-c", WRITE], folder, **homes(folder)[kind])
    errors = done.stdout.splitlines()
    assert len(errors) == 4, done.stdout + done.stderr
    for error, allowed in zip(errors, ("ArtifactError", "RegistryError", *["ConfigurationError"] * 2), strict=True):
        assert error.split()[0] in (allowed, "ConfigurationError")
        assert f"user {UID}" in error
        assert "STEPOPS_HOME, or [stepops] home, to a folder that" in error
        if kind == "none":
            assert "has no home folder" in error
        else:
            assert " cannot be written by user" in error
            assert "/nonexistent/airflow/stepops/" in error or str(folder / "locked") in error


@pytest.mark.parametrize(
    "variables", [{"STEPOPS_HOME": "~/x"}, {"AIRFLOW_HOME": "~"}, {"AIRFLOW_CONFIG": "~/airflow.cfg"}]
)
def test_a_tilde_without_a_home_is_named(folder: Path, variables: dict[str, str]) -> None:
    done = as_stranger(BUILD, folder, **variables)
    (given,) = variables.values()
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"airflow_stepops.errors.ConfigurationError: {given}: user {UID} has no home folder: ")
