"""What an Airflow connection of type ``azure`` opens, and what its errors mean."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug import Response

from airflow_stepops import __version__
from airflow_stepops.clouds.azure.connection import Account, account
from tests.clouds.azure.conftest import Connect
from tests.clouds.azure.emulated import CLIENT, SUBSCRIPTION, EmulatedAzure
from tests.clouds.gcp.emulated import Answer, Call


@pytest.fixture(autouse=True)
def echo(azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Resource Manager that says what it was asked."""

    def answer(call: Call) -> Answer:
        if call.method == "DELETE":
            return Response(b"", 204)
        return 200, {"caller": call.caller, "query": call.query, "body": call.json if call.body else None}

    monkeypatch.setitem(azure.apis, "arm", answer)


def ask(opened: Account, method: str = "GET", path: str = "/things", **arguments: Any) -> Any:
    cloud = opened.cloud
    return opened.call(method, f"{cloud.resource_manager}{path}", scope=cloud.scope, **arguments)


def test_a_call_is_made_as_the_connection_s_service_principal(azure: EmulatedAzure, connection: str) -> None:
    opened = account(connection)
    assert ask(opened)["caller"] == CLIENT
    assert opened.subscription == SUBSCRIPTION
    assert azure.grants[-1] == f"{azure.url}/arm"
    assert azure.calls[-1].headers["user-agent"] == f"airflow-stepops/{__version__}"
    assert ask(opened, "POST", params={"a": "b c"}, json={"x": [1]}, headers={"X-Mine": "1"}) == {
        "caller": CLIENT, "query": {"a": "b c"}, "body": {"x": [1]},
    }  # fmt: skip
    assert azure.calls[-1].headers["x-mine"] == "1"
    assert ask(opened, "DELETE") == {}
