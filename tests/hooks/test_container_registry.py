"""The connection of a container registry, as Airflow's form tests it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from airflow_stepops.hooks.container_registry import ContainerRegistryHook
from tests.engines import running_registry


@pytest.fixture(scope="module")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("locked")
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"someone:{hashed}\n")
    with running_registry(folder, {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}) as host:
        yield host


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> object:
    def define(**fields: str) -> ContainerRegistryHook:
        connection = json.dumps({"conn_type": "container_registry", **fields})
        monkeypatch.setenv("AIRFLOW_CONN_MY_REGISTRY", connection)
        return ContainerRegistryHook("my_registry")

    return define


def test_a_right_login_is_accepted(locked_registry: str, connect) -> None:  # type: ignore[no-untyped-def]
    hook = connect(host=locked_registry, login="someone", password="right")
    assert hook.login() == ("someone", "right")
    assert hook.test_connection() == (True, f"{locked_registry} accepts the login.")


def test_a_wrong_login_is_told_without_the_password(locked_registry: str, connect) -> None:  # type: ignore[no-untyped-def]
    accepted, message = connect(host=locked_registry, login="someone", password="wr0ng").test_connection()
    assert not accepted
    assert locked_registry in message
    assert "wr0ng" not in message


def test_an_open_registry_needs_no_login(registry: str, connect) -> None:  # type: ignore[no-untyped-def]
    hook = connect(host=registry)
    assert hook.login() is None
    assert hook.test_connection()[0]


def test_a_connection_without_a_registry_says_what_to_fill_in(connect) -> None:  # type: ignore[no-untyped-def]
    assert connect().test_connection() == (
        False,
        "The field Registry is empty: give a host, such as registry.example.com:5000.",
    )
