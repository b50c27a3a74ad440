"""``stepops doctor`` on stacks that are well, and on stacks that are not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.cli.conftest import Said, Stepops
from tests.engines import Podman, running_registry

USER, PASSWORD = "team", "correct horse"


@pytest.fixture
def registered(stepops: Stepops, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stepops:
    """A stack whose values are in the folder ``values``, active."""
    monkeypatch.setenv("STEPOPS_HOME", str(folder / "home"))
    stepops("artifact-store", "register", "files", "--flavor", "local", "--path", str(folder / "values"))
    stepops("container-registry", "register", "folder", "--flavor", "local", "--path", str(folder / "images"))
    stepops("stack", "register", "mine", "-a", "files", "-c", "folder", "-s", "local", "--set")
    return stepops


def found(said: Said) -> dict[str, dict[str, Any]]:
    """Return the checks by what was checked."""
    return {check["what"]: check for check in json.loads(said.out)}


def test_a_stack_that_is_well_passes_and_nothing_is_left(registered: Stepops, folder: Path) -> None:
    said = registered("doctor")
    assert (said.code, said.err) == (0, "")
    assert "FAILED" not in said.out
    parts = found(registered("doctor --json"))
    assert list(parts) == ["stack file", "artifact store files", "container registry folder", "step operator local"]
    assert all(check["passed"] for check in parts.values())
    assert [path for path in (folder / "values").rglob("*") if path.is_file()] == []


def test_without_a_file_the_built_in_stack_is_tried(
    stepops: Stepops, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPOPS_HOME", str(folder / "home"))
    parts = found(stepops("doctor --json"))
    assert "built-in" in parts["stack file"]["said"]
    assert all(check["passed"] for check in parts.values())


def test_a_file_that_others_cannot_read_is_named_with_the_command_that_mends_it(
    registered: Stepops, folder: Path
) -> None:
    (folder / "stepops.yaml").chmod(0o600)
    said = registered("doctor --json")
    assert said.code == 1
    assert f"chmod o+r {folder / 'stepops.yaml'}" in found(said)["stack file"]["said"]


def test_a_component_in_no_stack_is_checked_too(registered: Stepops, folder: Path) -> None:
    path = folder / "stepops.yaml"
    path.write_text(path.read_text().replace("  folder:\n", "  spare:\n    flavor: generic\n  folder:\n"))
    said = registered("doctor --json")
    assert said.code == 1
    assert "container_registries.spare.uri: this setting is required" in found(said)["stack file"]["said"]


def test_a_store_that_cannot_be_written_fails_and_the_rest_is_tried(registered: Stepops, folder: Path) -> None:
    (folder / "values").write_text("a file, and no folder")
    said = registered("doctor --json")
    parts = found(said)
    assert said.code == 1
    assert [what for what, check in parts.items() if not check["passed"]] == ["artifact store files"]
    assert str(folder / "values") in parts["artifact store files"]["said"]


@pytest.fixture
def with_registry(registered: Stepops, folder: Path, monkeypatch: pytest.MonkeyPatch, podman: Podman) -> Iterator[Any]:
    """A stack with a registry that wants a login, and containers; gives the doctor, who is told a password."""
    place = folder / "registry"
    place.mkdir()
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (place / "htpasswd").write_text(f"{USER}:{hashed}\n")
    with running_registry(place, {"htpasswd": {"realm": "test", "path": str(place / "htpasswd")}}) as host:
        registered(f"container-registry register team --flavor generic --uri {host} --connection team")
        registered(f"step-operator register engine --flavor docker --docker-host {podman.socket}")
        registered(f"image-builder register engine --flavor docker --docker-host {podman.socket}")
        registered("stack register containers -a files -c team -s engine -i engine --set")

        def doctor(password: str | None) -> tuple[int, dict[str, dict[str, Any]]]:
            if password is not None:
                connection = {"conn_type": "container_registry", "login": USER, "password": password}
                monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps(connection))
            said = registered("doctor --json")
            assert password is None or password not in said.out + said.err
            return said.code, found(said)

        yield doctor


def test_a_registry_with_a_login_and_an_engine_pass(with_registry: Any) -> None:
    code, parts = with_registry(PASSWORD)
    assert code == 0, parts
    assert "pushes and pulls" in parts["container registry team"]["said"]
    assert parts["step operator engine"]["passed"] and parts["image builder engine"]["passed"]


def test_a_wrong_password_and_a_missing_connection_are_told_apart(with_registry: Any) -> None:
    code, parts = with_registry("wrong password")
    assert (code, parts["container registry team"]["passed"]) == (1, False)
    wrong = parts["container registry team"]["said"]
    assert "401" in wrong or "credentials" in wrong or "login" in wrong


def test_a_connection_that_is_not_there_is_named(with_registry: Any) -> None:
    code, parts = with_registry(None)
    assert code == 1
    assert "there is no Airflow connection 'team'" in parts["container registry team"]["said"]


def test_an_engine_that_is_not_there_is_named(registered: Stepops, folder: Path) -> None:
    registered("step-operator", "register", "gone", "--flavor", "docker", "--docker-host", f"unix://{folder}/gone.sock")
    registered("stack update mine -s gone -s local")
    said = registered("doctor --json")
    parts = found(said)
    assert said.code == 1
    assert "gone.sock" in parts["step operator gone"]["said"]
    assert parts["step operator local"]["passed"]


def test_a_stack_that_is_not_there_is_a_typo(registered: Stepops) -> None:
    said = registered("doctor --stack mne --json")
    assert said.code == 1
    assert "Did you mean 'mine'?" in found(said)["stack"]["said"]
