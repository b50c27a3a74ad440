"""What an Airflow connection of type ``aws`` opens, and what its errors mean."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from airflow_stepops import __version__
from airflow_stepops.clouds.aws.connection import account, client, passing
from airflow_stepops.errors import EndKind, JobRefusedError, StackError, TransientServiceError
from tests.clouds.aws.conftest import Connect
from tests.clouds.aws.emulated import ACCESS_KEY, REGION, SECRET_KEY, EmulatedAws
from tests.engines import free_port


def test_a_client_has_keys_region_and_address_of_the_connection(aws: EmulatedAws, connection: str) -> None:
    before = len(aws.calls)
    opened = client("sts", connection)
    assert opened.get_caller_identity()["Account"] == "123456789012"
    assert opened.meta.region_name == REGION
    assert aws.calls[before:] == ["GetCallerIdentity"]
    assert aws.signed_with[-1] == (ACCESS_KEY, "")
    assert f"airflow-stepops/{__version__}" in aws.agents[-1]


def test_the_region_of_a_component_goes_before_that_of_the_connection(connection: str) -> None:
    assert client("ecr", connection, "us-west-2").meta.region_name == "us-west-2"
    assert client("ecr", connection).meta.region_name == REGION


def test_a_role_of_the_connection_is_taken_on(aws: EmulatedAws, connect: Connect) -> None:
    connection = connect(role_arn="arn:aws:iam::123456789012:role/steps")
    assert ":assumed-role/steps/" in client("sts", connection).get_caller_identity()["Arn"]
    assert aws.calls[-2:] == ["AssumeRole", "GetCallerIdentity"]
    key, token = aws.signed_with[-1]
    assert key.startswith("ASIA")
    assert token


def test_a_role_for_a_web_identity_is_taken_on(aws: EmulatedAws, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("web identity")
    connection = connect(
        login=None,
        password=None,
        role_arn="arn:aws:iam::123456789012:role/pods",
        assume_role_method="assume_role_with_web_identity",
        assume_role_with_web_identity_federation="file",
        assume_role_with_web_identity_token_file=str(tmp_path / "token"),
    )
    assert ":assumed-role/pods/" in client("sts", connection).get_caller_identity()["Arn"]
    assert "AssumeRoleWithWebIdentity" in aws.calls


def test_a_profile_of_the_connection_is_read(
    aws: EmulatedAws, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text("[team]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    client("sts", connect(login=None, password=None, profile_name="team")).get_caller_identity()
    assert aws.signed_with[-1] == ("AKIAPROFILE", "")


def test_without_a_connection_it_is_aws_default_and_else_what_boto3_finds(
    aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for region, variables in {
        "us-east-1": {"AWS_ACCESS_KEY_ID": "AKIAVARIABLES", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": aws.url},
        "us-east-2": {
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(
                {"conn_type": "aws", "login": "AKIADEFAULT", "password": "s", "extra": {"endpoint_url": aws.url}}
            )
        },
    }.items():
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        client("sts", region=region).get_caller_identity()
        seen.append(aws.signed_with[-1][0])
    assert seen == ["AKIAVARIABLES", "AKIADEFAULT"]


def test_a_connection_that_is_named_has_to_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHEMACHINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    with pytest.raises(StackError, match=r"no Airflow connection 'aws_nobody': add it"):
        client("sts", "aws_nobody")


def test_threads_share_one_client_of_a_service(connection: str) -> None:
    ready = threading.Barrier(8, timeout=30)
    opened = account(connection)

    def get(_: int) -> int:
        ready.wait()
        return id(opened.client("sts"))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(get, range(8)))) == 1
    assert client("sts", connection) is opened.client("sts")


def test_a_changed_connection_is_noticed_when_its_keys_are_refused(
    aws: EmulatedAws, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client("ecr", connection).describe_repositories()
    name = f"AIRFLOW_CONN_{connection.upper()}"
    changed = {"login": "AKIACHANGED", "password": "s", "extra": {"endpoint_url": aws.url, "region_name": REGION}}
    monkeypatch.setenv(name, json.dumps({"conn_type": "aws", **changed}))
    aws.fail("DescribeRepositories", "ExpiredTokenException", times=1)
    with pytest.raises(TransientServiceError), passing():
        client("ecr", connection).describe_repositories()
    client("ecr", connection).describe_repositories()
    assert aws.signed_with[-1][0] == "AKIACHANGED"


def test_a_session_goes_on_while_the_token_service_is_away(
    aws: EmulatedAws, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(role_arn="arn:aws:iam::123456789012:role/steps")
    client("ecr", connection).describe_registry()
    signed = aws.signed_with[-1]
    monkeypatch.setattr("airflow_stepops.clouds.aws.connection._KEPT_SECONDS", 0.0)
    plan = aws.fail("AssumeRole", "AccessDenied", 403)
    before = aws.count("AssumeRole")
    client("ecr", connection).describe_registry()
    plan.times = 0
    assert aws.count("AssumeRole") > before
    assert aws.signed_with[-1] == signed
    client("ecr", connection).describe_registry()
    assert aws.signed_with[-1] != signed


REFUSALS = [
    ("AccessDeniedException", 400, EndKind.PERMISSION),
    ("UnrecognizedClientException", 400, EndKind.PERMISSION),
    ("InvalidSignatureException", 403, EndKind.PERMISSION),
    ("ValidationException", 400, EndKind.INVALID_REQUEST),
    ("InvalidParameterException", 400, EndKind.INVALID_REQUEST),
    ("ResourceLimitExceeded", 400, EndKind.CAPACITY),
]


@pytest.mark.parametrize(("code", "status", "kind"), REFUSALS, ids=[code for code, _, _ in REFUSALS])
def test_what_a_retry_cannot_help_is_refused_with_its_kind(
    code: str, status: int, kind: EndKind, aws: EmulatedAws, connection: str
) -> None:
    plan = aws.fail("DescribeRegistry", code, status, message=f"the key {ACCESS_KEY} is wrong")
    with pytest.raises(JobRefusedError, match=f"AWS DescribeRegistry .*{code}") as raised, passing():
        client("ecr", connection).describe_registry()
    plan.times = 0
    assert raised.value.kind is kind
    assert ACCESS_KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ThrottlingException", 400),
        ("TooManyRequestsException", 429),
        ("RequestLimitExceeded", 503),
        ("InternalFailure", 500),
        ("ServiceUnavailable", 503),
        ("ExpiredTokenException", 403),
    ],
)
def test_what_may_pass_by_itself_is_transient(code: str, status: int, aws: EmulatedAws, connection: str) -> None:
    plan = aws.fail("DescribeRegistry", code, status)
    with pytest.raises(TransientServiceError, match=f"AWS DescribeRegistry answers {code}"), passing():
        client("ecr", connection).describe_registry()
    plan.times = 0


def test_a_throttle_that_passes_costs_nothing(aws: EmulatedAws, connection: str) -> None:
    aws.fail("DescribeRegistry", "ThrottlingException", times=2)
    before = aws.count("DescribeRegistry")
    with passing():
        assert client("ecr", connection).describe_registry()["registryId"] == "123456789012"
    assert aws.count("DescribeRegistry") - before == 3


def test_a_missing_permission_is_named(aws: EmulatedAws, connection: str) -> None:
    said = "User: arn:aws:iam::123456789012:user/me is not authorized to perform: ecr:DescribeRegistry on resource: x"
    plan = aws.fail("DescribeRegistry", "AccessDeniedException", message=said)
    with pytest.raises(JobRefusedError, match=r"Allow ecr:DescribeRegistry to the role or user"), passing():
        client("ecr", connection).describe_registry()
    plan.times = 0


def test_an_address_where_nobody_is_is_transient(connect: Connect) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TransientServiceError, match=r"AWS gave no answer: .*127\.0\.0\.1"), passing():
        client("ecr", connect(endpoint_url=nobody)).describe_registry()


def test_a_proxy_that_answers_with_a_page_of_its_own_is_transient(connect: Connect) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(400)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        page = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            with pytest.raises(TransientServiceError, match="in the place of AWS"), passing():
                client("sts", connect(service_config={"sts": {"endpoint_url": page}})).get_caller_identity()
        finally:
            server.shutdown()
            thread.join()


def test_without_credentials_it_is_said_where_they_come_from(connect: Connect) -> None:
    said = r"no AWS credentials: .*Airflow connection of type aws"
    with pytest.raises(JobRefusedError, match=said) as raised, passing():
        client("ecr", connect(login=None, password=None)).describe_registry()
    assert raised.value.kind is EndKind.PERMISSION


def test_a_role_that_may_not_be_taken_on_is_a_matter_of_permission(aws: EmulatedAws, connect: Connect) -> None:
    plan = aws.fail("AssumeRole", "AccessDenied", 403)
    with pytest.raises(JobRefusedError, match="AssumeRole") as raised, passing():
        client("ecr", connect(role_arn="arn:aws:iam::123456789012:role/other"))
    plan.times = 0
    assert raised.value.kind is EndKind.PERMISSION


def test_the_connection_s_own_client_settings_go_first(connect: Connect) -> None:
    opened = client("ecr", connect(config_kwargs={"read_timeout": 7}))
    assert (opened.meta.config.read_timeout, opened.meta.config.connect_timeout) == (7, 5)
    assert isinstance(opened.exceptions.ClientError, type)
    assert issubclass(opened.exceptions.ClientError, ClientError)


def test_no_secret_is_in_what_is_logged(connection: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="airflow_stepops")
    client("sts", connection).get_caller_identity()
    assert SECRET_KEY not in caplog.text


def test_without_the_provider_it_is_said_what_to_install() -> None:
    code = """
import sys
sys.modules["boto3"] = None
from airflow_stepops.clouds.aws.connection import client
try:
    client("s3")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "StackError" in done.stdout
    assert "pip install 'airflow-stepops[amazon]'" in done.stdout
