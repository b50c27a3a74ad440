"""What an Airflow connection of type ``google_cloud_platform`` opens, and what its errors mean."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from werkzeug import Request, Response

from airflow_stepops import __version__
from airflow_stepops.clouds.gcp.connection import Account, account
from airflow_stepops.clouds.gcp.failures import RefusedCallError
from airflow_stepops.errors import EndKind, JobRefusedError, StackError, TransientServiceError
from tests.clouds.gcp.conftest import Connect
from tests.clouds.gcp.emulated import JOB, PROJECT, WORKER, Answer, Call, EmulatedGcp, Reset, serving
from tests.engines import free_port, run
from tests.images.certificates import self_signed

CONNECTION = "airflow_stepops.clouds.gcp.connection"


@pytest.fixture(autouse=True)
def echo(gcp: EmulatedGcp) -> None:
    """An API that says what it was asked."""

    def answer(call: Call) -> Answer:
        if call.method == "DELETE":
            return Response(b"", 204)
        return 200, {"caller": call.caller, "query": call.query, "body": call.json if call.body else None}

    gcp.apis["compute"] = answer


def ask(opened: Account, method: str = "GET", path: str = "/v1/things", **arguments: Any) -> Any:
    return opened.call(method, f"{opened.endpoint('compute')}{path}", **arguments)


def test_a_call_is_made_as_the_connection_s_service_account(gcp: EmulatedGcp, connection: str) -> None:
    opened = account(connection)
    assert ask(opened)["caller"] == WORKER == opened.service_account
    assert opened.project == PROJECT
    assert gcp.calls[-1].headers["user-agent"] == f"airflow-stepops/{__version__}"
    assert ask(opened, "POST", params={"a": "b c"}, json={"x": [1]}) == {
        "caller": WORKER, "query": {"a": "b c"}, "body": {"x": [1]},
    }  # fmt: skip
    assert ask(opened, "DELETE") == {}


def test_a_key_may_be_a_file_or_json_in_json(gcp: EmulatedGcp, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(json.dumps(gcp.key(JOB)))
    for extra in (
        {"keyfile_dict": None, "key_path": str(tmp_path / "key.json")},
        {"keyfile_dict": json.dumps(gcp.key(JOB))},
        {"keyfile_dict": None, "extra__google_cloud_platform__keyfile_dict": json.dumps(gcp.key(JOB))},
    ):
        assert ask(account(connect(**extra)))["caller"] == JOB


def test_the_project_of_a_component_goes_before_the_connection_s_and_the_key_s(
    gcp: EmulatedGcp, connect: Connect
) -> None:
    connection = connect(project="of-connection")
    assert account(connection, "of-component").project == "of-component"
    assert account(connection).project == "of-connection"
    without = account(connect(keyfile_dict=gcp.key(project_id=None)))
    with pytest.raises(StackError, match="no Google Cloud project is named: give 'project' in the stack, or 'project'"):
        _ = without.project


def test_a_workload_of_another_cloud_is_let_in_without_a_key(
    gcp: EmulatedGcp, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # google-auth asks it for the id of the project, of which a workload knows the number alone.
    projects = f"{gcp.url}/cloudresourcemanager/v1/projects/"
    monkeypatch.setattr("google.auth.external_account._CLOUD_RESOURCE_MANAGER", projects)
    monkeypatch.setitem(gcp.apis, "cloudresourcemanager", lambda _: (200, {"projectId": PROJECT}))
    (tmp_path / "token").write_text("of another cloud")
    for email, caller in {None: "federated", JOB: JOB}.items():
        configuration = gcp.federation(str(tmp_path / "token"), email)
        opened = account(connect(keyfile_dict=None, credential_config_file=configuration))
        assert ask(opened)["caller"] == caller
        assert opened.project == PROJECT
    assert gcp.grants[-2:] == ["federation", "impersonation"]


def test_the_last_account_of_an_impersonation_chain_makes_the_calls(
    gcp: EmulatedGcp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("google.auth.iam._IAM_ENDPOINT", gcp.impersonation_url("{}"))
    asked: list[Any] = []
    for chain in (f"between@{PROJECT}.iam.gserviceaccount.com,{JOB}", [JOB]):
        assert ask(account(connect(impersonation_chain=chain)))["caller"] == JOB
        asked += [call.json["delegates"] for call in gcp.calls if call.path.endswith(f"{JOB}:generateAccessToken")][-1:]
    assert asked == [[f"between@{PROJECT}.iam.gserviceaccount.com"], None]
    assert gcp.grants[-2:] == ["key", "impersonation"]


def test_without_a_connection_it_is_google_cloud_default_and_else_the_application_default(
    gcp: EmulatedGcp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.json").write_text(json.dumps(gcp.key("adc@x.iam.gserviceaccount.com")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    url = f"{gcp.url}/compute/v1/things"
    assert account(None, "one").call("GET", url)["caller"] == "adc@x.iam.gserviceaccount.com"
    extra = {"keyfile_dict": gcp.key("default@x.iam.gserviceaccount.com")}
    document = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps(document))
    assert account(None, "two").call("GET", url)["caller"] == "default@x.iam.gserviceaccount.com"


def test_a_connection_that_is_named_has_to_exist(
    gcp: EmulatedGcp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.json").write_text(json.dumps(gcp.key()))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(StackError, match=r"no Airflow connection 'gcp_nobody': add it"):
        account("gcp_nobody")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"keyfile_dict": "{"}, "Expecting property name"),
        ({"keyfile_dict": "[1]"}, "keyfile_dict is no JSON object"),
        ({"keyfile_dict": {"type": "service_account"}}, "private_key"),
        ({"keyfile_dict": {"private_key": "secret-of-mine", "client_email": "a", "token_uri": "b"}}, "PEM"),
        ({"keyfile_dict": None, "key_path": "/nowhere/key.json"}, "No such file"),
        ({"key_path": "/nowhere/key.json"}, "mutually exclusive"),
        ({"api_endpoint_overrides": {"storage": "storage:9000"}}, "holds the URLs of services"),
        ({"api_endpoint_overrides": "https://storage:9000"}, "holds the URLs of services"),
    ],
)
def test_a_connection_that_is_not_valid_is_said_without_its_secrets(
    extra: dict[str, Any], said: str, connect: Connect
) -> None:
    connection = connect(**extra)
    with pytest.raises(StackError, match=rf"Airflow connection '{connection}' is not valid: .*{said}") as raised:
        account(connection)
    assert "secret-of-mine" not in str(raised.value)


def test_calls_are_paid_for_by_the_quota_project(gcp: EmulatedGcp, connect: Connect) -> None:
    ask(account(connect(quota_project_id="who-pays")))
    assert gcp.calls[-1].headers["x-goog-user-project"] == "who-pays"
    ask(account(connect()))
    assert "x-goog-user-project" not in gcp.calls[-1].headers


def test_apis_are_where_google_has_them_unless_the_connection_says_else(gcp: EmulatedGcp, connect: Connect) -> None:
    usual = account(connect(api_endpoint_overrides=None))
    assert usual.endpoint("artifactregistry") == "https://artifactregistry.googleapis.com"
    assert usual.endpoint("aiplatform", "europe-west4") == "https://europe-west4-aiplatform.googleapis.com"
    assert usual.override("aiplatform") is None
    private = account(connect(api_endpoint_overrides={"aiplatform": "https://aiplatform-team.p.googleapis.com/"}))
    assert private.endpoint("aiplatform", "europe-west4") == "https://aiplatform-team.p.googleapis.com"
    own = account(connect(api_endpoint_overrides=None, keyfile_dict=gcp.key(universe_domain="cloud.example")))
    assert own.endpoint("logging") == "https://logging.cloud.example"


def test_threads_that_need_the_first_token_ask_for_one(gcp: EmulatedGcp, connection: str) -> None:
    ready, opened, before = threading.Barrier(8, timeout=30), account(connection), len(gcp.grants)

    def get(_: int) -> str:
        ready.wait()
        return opened.token()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(get, range(8)))) == 1
    assert gcp.grants[before:] == ["key"]
    assert account(connection) is opened


def test_a_token_is_renewed_before_it_ends(gcp: EmulatedGcp, connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = account(connection)
    for seconds, is_kept in {299.0: False, 330.0: True}.items():
        monkeypatch.setattr(gcp, "token_seconds", seconds)
        opened.forget(opened.token())
        assert (opened.token() == opened.token()) is is_kept


def test_a_token_that_is_revoked_is_replaced_and_the_call_made_again(gcp: EmulatedGcp, connection: str) -> None:
    opened = account(connection)
    ask(opened)
    gcp.revoke()
    before = len(gcp.grants)
    assert ask(opened)["caller"] == WORKER
    assert gcp.grants[before:] == ["key"]


def test_a_token_that_still_works_is_used_while_what_gives_others_is_away(
    gcp: EmulatedGcp, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcp, "token_seconds", 120.0)
    opened = account(connection)
    token = opened.token()
    plan = gcp.answer_with("", "^/token$", lambda: (400, {"error": "invalid_grant"}))
    assert opened.token() == token
    plan.times = 0
    assert opened.token() != token


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
    gcp: EmulatedGcp, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(account(connection))
    extra = {"keyfile_dict": gcp.key(JOB), "api_endpoint_overrides": gcp.overrides}
    document = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv(f"AIRFLOW_CONN_{connection.upper()}", json.dumps(document))
    gcp.fail("compute", "/things", 401, "UNAUTHENTICATED", times=2)
    with pytest.raises(RefusedCallError, match="401 UNAUTHENTICATED"):
        ask(account(connection))
    assert ask(account(connection))["caller"] == JOB


def info(reason: str, **metadata: str) -> list[dict[str, Any]]:
    return [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "metadata": metadata}]


FULL = "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_cpus"
REFUSALS = [
    (401, "UNAUTHENTICATED", "no", EndKind.PERMISSION),
    (403, "PERMISSION_DENIED", "no", EndKind.PERMISSION),
    (400, "INVALID_ARGUMENT", "no", EndKind.INVALID_REQUEST),
    (400, "FAILED_PRECONDITION", "no", EndKind.INVALID_REQUEST),
    (404, "NOT_FOUND", "no", EndKind.INVALID_REQUEST),
    (409, "ALREADY_EXISTS", "no", EndKind.INVALID_REQUEST),
    (412, "", "no", EndKind.INVALID_REQUEST),
    (429, "RESOURCE_EXHAUSTED", FULL, EndKind.CAPACITY),
]


@pytest.mark.parametrize(("status", "code", "said", "kind"), REFUSALS)
def test_what_a_retry_cannot_help_is_refused_with_its_kind(
    status: int, code: str, said: str, kind: EndKind, gcp: EmulatedGcp, connection: str
) -> None:
    plan = gcp.fail("compute", "/things", status, code, f"{said}: ya29.secret-of-mine")
    with pytest.raises(RefusedCallError, match=rf"Google GET .*/compute/v1/things answers {status}") as raised:
        ask(account(connection))
    plan.times = 0
    assert raised.value.kind is kind
    assert (raised.value.failure.status, raised.value.failure.code) == (status, code)
    assert raised.value.is_not_found == (status == 404)
    assert raised.value.is_there_already == (code == "ALREADY_EXISTS")
    assert "secret-of-mine" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "code", "details"),
    [
        (408, "", None),
        (429, "RESOURCE_EXHAUSTED", info("RATE_LIMIT_EXCEEDED", quota_limit="a minute")),
        (403, "PERMISSION_DENIED", info("RATE_LIMIT_EXCEEDED")),
        (409, "ABORTED", None),
        (500, "INTERNAL", None),
        (502, "", None),
        (503, "UNAVAILABLE", None),
        (504, "DEADLINE_EXCEEDED", None),
    ],
)
def test_what_may_pass_by_itself_is_transient(
    status: int, code: str, details: Any, gcp: EmulatedGcp, connection: str
) -> None:
    gcp.fail("compute", "/things", status, code, times=1, details=details)
    with pytest.raises(TransientServiceError, match=f"answers {status}"):
        ask(account(connection))
    assert ask(account(connection))["caller"] == WORKER


@pytest.mark.parametrize(
    ("message", "details", "advice"),
    [
        ("Permission 'aiplatform.customJobs.create' denied on resource '//x' (or it may not exist).", None,
         "Allow aiplatform.customJobs.create to the service account or user of the Airflow connection."),
        ("The caller does not have permission", info("IAM_PERMISSION_DENIED", permission="logging.logEntries.list"),
         "Allow logging.logEntries.list to the service account"),
        ("x has not been used in project 1 before or it is disabled.",
         info("SERVICE_DISABLED", service="aiplatform.googleapis.com"),
         "Enable it: gcloud services enable aiplatform.googleapis.com"),
        ("Billing is off.", info("BILLING_DISABLED"), "Turn on billing"),
        ("Insufficient scopes.", info("ACCESS_TOKEN_SCOPE_INSUFFICIENT"), "scope cloud-platform"),
        ("Prohibited by organization's policy.", info("SECURITY_POLICY_VIOLATED"), "service perimeter"),
        ("no", None, "Allow this to the service account or user"),
    ],
)  # fmt: skip
def test_what_helps_against_a_missing_permission_is_named(
    message: str, details: Any, advice: str, gcp: EmulatedGcp, connection: str
) -> None:
    plan = gcp.fail("compute", "/things", 403, "PERMISSION_DENIED", message, details=details)
    with pytest.raises(JobRefusedError) as raised:
        ask(account(connection))
    plan.times = 0
    assert advice in str(raised.value)
    assert raised.value.kind is EndKind.PERMISSION


def test_an_address_where_nobody_is_is_transient(connect: Connect) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TransientServiceError, match=r"127\.0\.0\.1/v1/things: no answer \(ConnectError"):
        ask(account(connect(api_endpoint_overrides={"compute": nobody})))


def test_a_certificate_that_is_not_trusted_says_where_to_name_its_authority(
    gcp: EmulatedGcp, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = self_signed("of nobody")
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "certificate").write_bytes(certificate)

    def answer(request: Request) -> Response:
        return gcp.answer(request, "compute" if request.method == "GET" else "", request.path)

    with serving(answer, "127.0.0.2", certificate=(str(tmp_path / "certificate"), str(tmp_path / "key"))) as url:
        api, keyfile = {"compute": url}, gcp.key(token_uri=f"{url}/token")
        for settings in ({"api_endpoint_overrides": api}, {"keyfile_dict": keyfile}):
            with pytest.raises(RefusedCallError, match=r"is not trusted: .*in the variable SSL_CERT_FILE") as raised:
                ask(account(connect(**settings)))
            assert raised.value.kind is EndKind.INVALID_REQUEST
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate"))
        assert ask(account(connect(api_endpoint_overrides=api, keyfile_dict=keyfile)))["caller"] == WORKER


def _reset() -> Answer:
    raise Reset


def test_a_connection_that_is_reset_is_transient(gcp: EmulatedGcp, connection: str) -> None:
    plan = gcp.answer_with("compute", "/things", _reset, times=1)
    with pytest.raises(TransientServiceError, match="no answer"):
        ask(account(connection))
    assert plan.times == 0
    assert ask(account(connection))["caller"] == WORKER


def test_an_answer_that_takes_too_long_is_transient(
    gcp: EmulatedGcp, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_stepops.clouds.gcp.connection.ANSWER_SECONDS", 1.0)
    opened, given = account(connection), threading.Event()

    def slow() -> Answer:
        given.wait(10)
        return 200, {}

    opened.token()
    gcp.answer_with("compute", "/things", slow, times=1)
    with pytest.raises(TransientServiceError, match=r"no answer \(ReadTimeout"):
        ask(opened)
    given.set()


@pytest.mark.parametrize("status", [200, 400, 403])
def test_a_proxy_that_answers_with_a_page_of_its_own_is_transient(
    status: int, gcp: EmulatedGcp, connection: str
) -> None:
    gcp.answer_with("compute", "/things", lambda: Response("<html>", status), times=1)
    with pytest.raises(TransientServiceError, match="in the place of Google"):
        ask(account(connection))


def test_without_credentials_it_is_said_where_they_come_from(connect: Connect) -> None:
    said = r"no Google credentials: .*Airflow connection of type google_cloud_platform"
    with pytest.raises(RefusedCallError, match=said) as raised:
        account(connect(keyfile_dict=None))
    assert raised.value.kind is EndKind.PERMISSION


def test_credentials_that_google_does_not_take_are_a_matter_of_permission(
    gcp: EmulatedGcp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = "gone@x.iam.gserviceaccount.com"
    monkeypatch.setattr(gcp, "disabled", {gone})
    with pytest.raises(RefusedCallError, match=r"does not take the credentials: .*account not found") as raised:
        account(connect(keyfile_dict=gcp.key(gone))).token()
    assert raised.value.kind is EndKind.PERMISSION


def test_a_token_endpoint_that_is_away_is_transient(gcp: EmulatedGcp, connect: Connect) -> None:
    plan = gcp.answer_with("", "^/token$", lambda: (503, {"error": "internal_failure"}))
    with pytest.raises(TransientServiceError, match="Google gave no access token"):
        account(connect()).token()
    plan.times = 0
    nobody = f"http://127.0.0.1:{free_port()}/token"
    with pytest.raises(TransientServiceError, match="Google gave no access token"):
        account(connect(keyfile_dict=gcp.key(token_uri=nobody))).token()


def test_an_account_that_may_not_be_impersonated_names_the_permission(
    gcp: EmulatedGcp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("google.auth.iam._IAM_ENDPOINT", gcp.impersonation_url("{}"))
    said = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
    for status, code, kind in (
        (403, "PERMISSION_DENIED", RefusedCallError),
        (503, "UNAVAILABLE", TransientServiceError),
    ):
        plan = gcp.fail("iamcredentials", "generateAccessToken", status, code, said)
        with pytest.raises(kind, match=r"iam\.serviceAccounts\.getAccessToken"):
            account(connect(impersonation_chain=JOB)).token()
        plan.times = 0


def test_no_secret_is_in_what_is_logged(gcp: EmulatedGcp, connection: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for logger in ("airflow_stepops", "httpx", "httpcore", "google"):
        caplog.set_level("DEBUG", logger=logger)
    opened = account(connection)
    ask(opened)
    told = caplog.text + repr(vars(opened))
    assert not any(secret in told for secret in (gcp.key()["private_key"], opened.token()))


def test_without_the_provider_it_is_said_what_to_install() -> None:
    code = """
import sys
sys.modules["google.auth"] = None
from airflow_stepops.clouds.gcp.connection import account
try:
    account()
except Exception as error:
    print(type(error).__name__, error)
"""
    said = run(sys.executable, "-c", code)
    assert "StackError" in said
    assert "pip install 'airflow-stepops[google]'" in said


def test_no_client_of_google_s_apis_that_is_not_needed_is_imported(connection: str) -> None:
    code = f"""
import sys
from airflow_stepops.clouds.gcp.connection import account
account({connection!r}).token()
print([name for name in ("google.cloud.aiplatform", "google.cloud.storage", "googleapiclient") if name in sys.modules])
"""
    assert run(sys.executable, "-c", code).splitlines()[-1] == "[]"
