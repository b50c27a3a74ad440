"""What an Airflow connection of type ``azure`` opens, and what its errors mean."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from werkzeug import Response

from airflow_stepops import __version__
from airflow_stepops.clouds.azure.clouds import CLOUDS
from airflow_stepops.clouds.azure.connection import Account, account
from airflow_stepops.clouds.azure.failures import RefusedCallError
from airflow_stepops.errors import EndKind, JobRefusedError, StackError, TransientServiceError
from tests.clouds.azure.conftest import Connect
from tests.clouds.azure.emulated import CLIENT, IDENTITY, SECRET, SUBSCRIPTION, TENANT, EmulatedAzure
from tests.clouds.gcp.emulated import Answer, Call, Reset
from tests.engines import free_port, run
from tests.images.certificates import self_signed

CONNECTION = "airflow_stepops.clouds.azure.connection"
OTHER, OTHER_SECRET = "0e0e0e0e-0000-4000-8000-000000000000", "another~secret"


@pytest.fixture(autouse=True)
def echo(azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Resource Manager that says what it was asked."""

    def answer(call: Call) -> Answer:
        if call.method == "DELETE":
            return Response(b"", 204)
        return 200, {"caller": call.caller, "query": call.query, "body": call.json if call.body else None}

    monkeypatch.setitem(azure.apis, "arm", answer)
    monkeypatch.setitem(azure.secrets, OTHER, OTHER_SECRET)


def ask(opened: Account, method: str = "GET", path: str = "/things", **arguments: Any) -> Any:
    cloud = opened.cloud
    return opened.call(method, f"{cloud.resource_manager}{path}", scope=cloud.scope, **arguments)


def test_a_call_is_made_as_the_connection_s_service_principal(azure: EmulatedAzure, connection: str) -> None:
    opened = account(connection)
    assert ask(opened)["caller"] == CLIENT
    assert (opened.subscription, opened.tenant) == (SUBSCRIPTION, TENANT)
    assert azure.grants[-1] == f"{azure.url}/arm"
    assert azure.calls[-1].headers["user-agent"] == f"airflow-stepops/{__version__}"
    assert ask(opened, "POST", params={"a": "b c"}, json={"x": [1]}, headers={"X-Mine": "1"}) == {
        "caller": CLIENT, "query": {"a": "b c"}, "body": {"x": [1]},
    }  # fmt: skip
    assert azure.calls[-1].headers["x-mine"] == "1"
    assert ask(opened, "DELETE") == {}


def test_a_key_of_the_connection_goes_before_its_login(connect: Connect, tmp_path: Path) -> None:
    key = {"clientId": OTHER, "clientSecret": OTHER_SECRET, "tenantId": TENANT, "subscriptionId": "of-key"}
    (tmp_path / "key.json").write_text(json.dumps(key))
    for extra in ({"key_json": key}, {"key_json": json.dumps(key)}, {"key_path": str(tmp_path / "key.json")}):
        opened = account(connect(**extra))
        assert (ask(opened)["caller"], opened.subscription) == (OTHER, "of-key")


def test_fields_of_old_connections_are_read_by_their_old_names(azure: EmulatedAzure, connect: Connect) -> None:
    old = {"extra__azure__tenantId": TENANT, "extra__azure__subscriptionId": "old"}
    opened = account(connect(tenantId=None, subscriptionId=None, **old))
    assert (opened.subscription, opened.tenant, ask(opened)["caller"]) == ("old", TENANT, CLIENT)


def test_a_subscription_that_nobody_names_is_said_where_to_name(connect: Connect) -> None:
    opened = account(connect(subscriptionId=""))
    with pytest.raises(StackError, match="no Azure subscription is named: give 'subscription_id' in the stack"):
        _ = opened.subscription


def test_without_a_connection_it_is_azure_default_and_else_what_azure_identity_finds(
    azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, scope = f"{azure.url}/arm/things", "https://management.azure.com/.default"
    with monkeypatch.context() as patch:
        for name, value in azure.identity.items():
            patch.setenv(name, value)
        patch.setenv("AZURE_CLIENT_ID", IDENTITY)
        assert Account(None).call("GET", url, scope=scope)["caller"] == IDENTITY
    monkeypatch.setenv("AIRFLOW_CONN_AZURE_DEFAULT", azure.connection())
    assert Account(None).call("GET", url, scope=scope)["caller"] == CLIENT


def test_a_managed_identity_of_the_connection_makes_the_calls(
    azure: EmulatedAzure, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in azure.identity.items():
        monkeypatch.setenv(name, value)
    opened = account(connect(None, None, managed_identity_client_id=IDENTITY))
    assert ask(opened)["caller"] == IDENTITY


def test_an_identity_that_worked_and_is_away_for_now_is_transient(
    azure: EmulatedAzure, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**azure.identity, "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(azure, "token_seconds", 1.0)
    opened = account(connect(None, None, managed_identity_client_id=IDENTITY))
    opened.token(opened.cloud.scope)
    time.sleep(1.1)
    with monkeypatch.context() as patch:
        for name in azure.identity:
            patch.delenv(name)
        patch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
        opened.credential = Account(opened.connection).credential
        with pytest.raises(TransientServiceError, match="gives no access token for now"):
            opened.token(opened.cloud.scope)
    opened.credential = Account(opened.connection).credential
    assert opened.token(opened.cloud.scope)


def test_a_connection_that_is_named_has_to_exist() -> None:
    with pytest.raises(StackError, match=r"no Airflow connection 'azure_nobody': add it, of type azure"):
        account("azure_nobody")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"key_json": '{"clientSecret": "secret-of-mine"'}, "is no JSON"),
        ({"key_json": {"clientSecret": "secret-of-mine"}}, "no JSON object with clientId, clientSecret and tenantId"),
        ({"key_path": "/nowhere/key.json"}, "No such file"),
        ({"tenantId": "not a tenant"}, "tenant"),
        ({"cloud_environment": "AzureChina"}, "Did you mean 'AzureChinaCloud'"),
        ({"cloud_endpoints": {"resource_manager": "management.azure.com"}}, "holds places of a cloud"),
        ({"cloud_endpoints": {"storage_suffix": "https://x"}}, "holds places of a cloud"),
        ({"cloud_endpoints": {"resource": "https://x"}}, "allowed: resource_manager, active_directory"),
        ({"cloud_endpoints": "https://x"}, "holds places of a cloud"),
    ],
)
def test_a_connection_that_is_not_valid_is_said_without_its_secrets(
    extra: dict[str, Any], said: str, connect: Connect
) -> None:
    connection = connect(**extra)
    with pytest.raises(StackError, match=rf"Airflow connection '{connection}' is not valid: .*{said}") as raised:
        account(connection)
    assert "secret-of-mine" not in str(raised.value)


@pytest.mark.parametrize("name", CLOUDS)
def test_each_cloud_has_places_of_its_own(name: str, connect: Connect) -> None:
    opened = account(connect(cloud_environment=name, cloud_endpoints=None))
    assert opened.cloud == CLOUDS[name]
    assert opened.cloud.scope == f"{opened.cloud.resource_manager}/.default"
    ours = {value for value in vars(opened.cloud).values() if isinstance(value, str)}
    others = {value for cloud in CLOUDS.values() if cloud != opened.cloud for value in vars(cloud).values()}
    assert not ours & (others - {True})


def test_threads_that_need_the_first_token_ask_for_one(azure: EmulatedAzure, connection: str) -> None:
    ready, opened, before = threading.Barrier(8, timeout=30), account(connection), len(azure.grants)

    def get(_: int) -> str:
        ready.wait()
        return opened.token(opened.cloud.scope)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(get, range(8)))) == 1
    assert len(azure.grants) - before == 1
    assert account(connection) is opened


def test_each_scope_has_a_token_of_its_own(azure: EmulatedAzure, connection: str) -> None:
    opened, before = account(connection), len(azure.grants)
    tokens = {opened.token(scope) for scope in ("https://a/.default", "https://b/.default", "https://a/.default")}
    assert len(tokens) == 2
    assert azure.grants[before:] == ["https://a", "https://b"]


def test_a_token_that_is_revoked_is_replaced_and_the_call_made_again(azure: EmulatedAzure, connection: str) -> None:
    opened = account(connection)
    ask(opened)
    azure.revoke()
    before = len(azure.grants)
    assert ask(opened)["caller"] == CLIENT
    assert len(azure.grants) - before == 1


def test_a_token_that_still_works_is_used_while_entra_id_is_away(
    azure: EmulatedAzure, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure, "token_seconds", 120.0)
    opened = account(connection)
    token = opened.token(opened.cloud.scope)
    opened.credential = Account(connection).credential  # one without a token of its own
    plan = azure.answer_with("", "/token$", lambda: (503, {"error": "temporarily_unavailable"}))
    assert opened.token(opened.cloud.scope) == token
    plan.times = 0
    assert opened.token(opened.cloud.scope) != token


def test_an_account_goes_on_while_airflow_is_away(connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = account(connection)
    monkeypatch.setattr(f"{CONNECTION}._KEPT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("airflow.sdk.BaseHook.get_connection", _away)
        assert account(connection) is opened
    assert account(connection) is not opened


def _away(_: str) -> Any:
    raise ConnectionError("Airflow is away")


def test_a_changed_connection_is_noticed_when_its_account_is_refused(
    azure: EmulatedAzure, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(account(connection))
    monkeypatch.setenv(f"AIRFLOW_CONN_{connection.upper()}", azure.connection(OTHER, OTHER_SECRET))
    azure.fail("arm", "/things", 401, "InvalidAuthenticationToken", times=2)
    with pytest.raises(RefusedCallError, match="401 InvalidAuthenticationToken"):
        ask(account(connection))
    assert ask(account(connection))["caller"] == OTHER


REFUSALS = [
    (401, "InvalidAuthenticationToken", "no", EndKind.PERMISSION),
    (403, "AuthorizationFailed", "no", EndKind.PERMISSION),
    (400, "ValidationError", "no", EndKind.INVALID_REQUEST),
    (404, "ResourceNotFound", "no", EndKind.INVALID_REQUEST),
    (409, "Conflict", "no", EndKind.INVALID_REQUEST),
    (400, "QuotaExceeded", "no", EndKind.CAPACITY),
    (409, "SkuNotAvailable", "no", EndKind.CAPACITY),
]


@pytest.mark.parametrize(("status", "code", "said", "kind"), REFUSALS)
def test_what_a_retry_cannot_help_is_refused_with_its_kind(
    status: int, code: str, said: str, kind: EndKind, azure: EmulatedAzure, connection: str
) -> None:
    token = account(connection).token(account(connection).cloud.scope)
    plan = azure.fail("arm", "/things", status, code, f"{said}: {token} https://x/log?sv=1&sig=secret%2Fof-mine&x=y")
    with pytest.raises(RefusedCallError, match=rf"Azure GET .*/arm/things answers {status}") as raised:
        ask(account(connection))
    plan.times = 0
    assert raised.value.kind is kind
    assert (raised.value.failure.status, raised.value.failure.code) == (status, code)
    assert raised.value.is_not_found == (status == 404)
    assert raised.value.is_there_already == (status == 409)
    assert token not in str(raised.value)
    assert "of-mine" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (408, ""),
        (429, "TooManyRequests"),
        (409, "AnotherOperationInProgress"),
        (500, "InternalServerError"),
        (502, ""),
        (503, "ServiceUnavailable"),
        (504, "GatewayTimeout"),
    ],
)
def test_what_may_pass_by_itself_is_transient(status: int, code: str, azure: EmulatedAzure, connection: str) -> None:
    azure.fail("arm", "/things", status, code, times=1)
    with pytest.raises(TransientServiceError, match=f"answers {status}"):
        ask(account(connection))
    assert ask(account(connection))["caller"] == CLIENT


def test_the_action_that_is_missing_is_named(azure: EmulatedAzure, connection: str) -> None:
    action = "Microsoft.MachineLearningServices/workspaces/jobs/write"
    said = f"The client 'x' does not have authorization to perform action '{action}' over scope '/subscriptions/y'."
    for message, advice in ((said, f"Allow {action} to the identity"), ("no", "Allow this to the identity")):
        plan = azure.fail("arm", "/things", 403, "AuthorizationFailed", message)
        with pytest.raises(JobRefusedError, match=advice) as raised:
            ask(account(connection))
        plan.times = 0
        assert raised.value.kind is EndKind.PERMISSION


def test_the_innermost_code_is_the_one_that_says_something(azure: EmulatedAzure, connection: str) -> None:
    inner = {"code": "BadArgument", "innererror": {"code": "ArgumentInvalid"}}
    error = {"code": "UserError", "message": "no", "innererror": inner}
    azure.answer_with("arm", "/things", lambda: (400, {"error": error}), times=1)
    with pytest.raises(RefusedCallError) as raised:
        ask(account(connection))
    assert raised.value.failure.code == "BadArgument"


def test_an_address_where_nobody_is_is_transient(azure: EmulatedAzure, connect: Connect) -> None:
    nobody = {**azure.endpoints, "resource_manager": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(TransientServiceError, match=r"127\.0\.0\.1/things: no answer \(ConnectError"):
        ask(account(connect(cloud_endpoints=nobody)))


def test_a_certificate_that_is_not_trusted_says_where_to_name_its_authority(
    azure: EmulatedAzure, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.pem").write_bytes(self_signed("of nobody")[1])
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(tmp_path / "other.pem"))
            with pytest.raises(RefusedCallError, match=rf"is not trusted: .*in the variable {variable}") as raised:
                ask(account(connect()))
        assert raised.value.kind is EndKind.INVALID_REQUEST
    assert ask(account(connect()))["caller"] == CLIENT


def _reset() -> Answer:
    raise Reset


def test_a_connection_that_is_reset_is_transient(azure: EmulatedAzure, connection: str) -> None:
    plan = azure.answer_with("arm", "/things", _reset, times=1)
    with pytest.raises(TransientServiceError, match="no answer"):
        ask(account(connection))
    assert plan.times == 0
    assert ask(account(connection))["caller"] == CLIENT


def test_an_answer_that_takes_too_long_is_transient(
    azure: EmulatedAzure, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_stepops.clouds.azure.connection.ANSWER_SECONDS", 1.0)
    opened, given = account(connection), threading.Event()

    def slow() -> Answer:
        given.wait(10)
        return 200, {}

    opened.token(opened.cloud.scope)
    azure.answer_with("arm", "/things", slow, times=1)
    with pytest.raises(TransientServiceError, match=r"no answer \(ReadTimeout"):
        ask(opened)
    given.set()


@pytest.mark.parametrize("status", [200, 400, 403])
def test_a_proxy_that_answers_with_a_page_of_its_own_is_transient(
    status: int, azure: EmulatedAzure, connection: str
) -> None:
    azure.answer_with("arm", "/things", lambda: Response("<html>", status), times=1)
    with pytest.raises(TransientServiceError, match="in the place of Azure"):
        ask(account(connection))


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without an identity, and without the tools of people."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    monkeypatch.setenv("PATH", str(tmp_path))
    yield


@pytest.mark.usefixtures("nobody")
def test_without_credentials_it_is_said_where_they_come_from(connect: Connect) -> None:
    with pytest.raises(RefusedCallError, match=r"no Azure credentials: .*Airflow connection of type azure") as raised:
        ask(account(connect(None, None)))
    assert raised.value.kind is EndKind.PERMISSION


def test_credentials_that_entra_id_does_not_take_are_a_matter_of_permission(connect: Connect) -> None:
    said = r"does not take the credentials: .*AADSTS7000215: Invalid client secret provided for app '[\w-]+'\. Check"
    with pytest.raises(RefusedCallError, match=said) as raised:
        ask(account(connect(CLIENT, "wrong~secret")))
    assert raised.value.kind is EndKind.PERMISSION
    assert raised.value.failure.code == "AADSTS7000215"
    assert "wrong~secret" not in str(raised.value)


def test_an_entra_id_that_is_away_is_transient(azure: EmulatedAzure, connect: Connect) -> None:
    plan = azure.answer_with("", "/token$", lambda: (503, {"error": "temporarily_unavailable"}))
    with pytest.raises(TransientServiceError, match="Entra ID gave no access token"):
        ask(account(connect()))
    plan.times = 0
    nobody = {**azure.endpoints, "active_directory": f"https://127.0.0.2:{free_port()}"}
    with pytest.raises(TransientServiceError, match="Entra ID gave no access token"):
        ask(account(connect(cloud_endpoints=nobody)))


def test_no_secret_is_in_what_is_logged(connection: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for logger in ("airflow_stepops", "httpx", "httpcore", "azure.identity", "azure.core"):
        caplog.set_level("DEBUG", logger=logger)
    opened = Account(connection)
    ask(opened)
    assert SECRET not in caplog.text
    assert opened.token(opened.cloud.scope) not in caplog.text


def test_tokens_that_are_fetched_are_no_lines_of_a_task_s_log(connection: str) -> None:
    code = f"""
import logging
logging.basicConfig(level="INFO", format="%(name)s")
from airflow_stepops.clouds.azure.connection import account
account({connection!r}).token("https://a/.default")
"""
    said = run(sys.executable, "-c", f"import sys; sys.stderr = sys.stdout\n{code}")
    assert "azure" not in said


def test_without_the_provider_it_is_said_what_to_install() -> None:
    code = """
import sys
sys.modules["azure.identity"] = None
from airflow_stepops.clouds.azure.connection import account
try:
    account()
except Exception as error:
    print(type(error).__name__, error)
"""
    said = run(sys.executable, "-c", code)
    assert "StackError" in said
    assert "pip install 'airflow-stepops[azure]'" in said


def test_no_client_of_azure_s_services_is_imported(connection: str) -> None:
    code = f"""
import sys
from airflow_stepops.clouds.azure.connection import account
account({connection!r}).token("https://a/.default")
found = ("azure.ai.ml", "azure.mgmt", "azure.storage", "airflow.providers.microsoft.azure.hooks", "msrest")
print([name for name in found if name in sys.modules])
"""
    assert run(sys.executable, "-c", code).splitlines()[-1] == "[]"
