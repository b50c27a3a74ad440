"""AWS in this process: moto's services behind one address, with logins of ECR that end and calls that fail."""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.clouds.aws.iam import allows, rights
from tests.clouds.clock import Clock

REGION = "eu-central-1"
ACCESS_KEY = "AKIAEMULATEDAWSKEYS0"
SECRET_KEY = "emulated/secret+key"

StartResponse = Callable[..., Any]


@dataclass
class Failing:
    """What the next calls of an operation are answered with."""

    operation: str
    code: str
    status: int
    times: int
    message: str


@dataclass
class EmulatedAws:
    """A running emulation.

    :param url: of every service.
    :param calls: names of the operations so far; those of S3 are ``HEAD /bucket`` and so on.
    :param signed_with: the access keys that signed the calls, and the session tokens beside.
    :param revoked: access keys that are not taken any more.
    :param policies: access key → the policy of who has it, for calls of S3; others may do everything.
    :param login_seconds: how long ECR's logins say they are good for.
    :param logins: passwords of ECR that are good.
    :param given: passwords of ECR so far.
    :param clock: of all services.
    """

    url: str = ""
    calls: list[str] = field(default_factory=list)
    signed_with: list[tuple[str, str]] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    policies: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    login_seconds: float = 12 * 3600
    logins: set[str] = field(default_factory=set)
    given: list[str] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    _failing: list[Failing] = field(default_factory=list)
    _deciding: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, operation: str, code: str, status: int = 400, times: int = 1000, message: str = "no") -> Failing:
        """Answer the next calls of an operation with an error; ``times = 0`` on the returned object ends it."""
        failing = Failing(operation, code, status, times, message)
        self._failing.append(failing)
        return failing

    def count(self, operation: str) -> int:
        """Return how often an operation was called."""
        return self.calls.count(operation)

    def client(self, service: str, region: str = REGION) -> Any:
        """Return a client of the tests' own, that does not go through Airflow."""
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        return boto3.client(service, region_name=region, endpoint_url=self.url, **keys)

    def application(self, inner: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return moto with what is wrong today; it decides one call at a time, so that conditional writes hold."""

        def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            operation = self._operation(environ)
            key = self._note(environ, operation)
            if key in self.revoked:
                return _error(Failing(operation, "UnrecognizedClientException", 400, 1, "no"), environ, start_response)
            if key in self.policies and not self._is_allowed(environ, self.policies[key]):
                return _error(Failing(operation, "AccessDenied", 403, 1, "Access Denied"), environ, start_response)
            planned = next((plan for plan in self._failing if plan.operation == operation and plan.times > 0), None)
            if planned is not None:
                planned.times -= 1
                return _error(planned, environ, start_response)
            if operation == "GetAuthorizationToken":
                return _json(self._login(), 200, start_response)
            with self._deciding:
                return inner(environ, start_response)

        return answer

    def _note(self, environ: dict[str, Any], operation: str) -> str:
        """Note a call, and return the access key that signed it."""
        signed = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        self.calls.append(operation)
        self.agents.append(environ.get("HTTP_USER_AGENT", ""))
        key = signed[1] if signed else ""
        self.signed_with.append((key, environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "")))
        return key

    def _operation(self, environ: dict[str, Any]) -> str:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if target:
            return str(target.rpartition(".")[2])
        if environ["REQUEST_METHOD"] == "POST" and "form" in environ.get("CONTENT_TYPE", ""):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = BytesIO(body)
            return parse_qs(body.decode()).get("Action", [""])[0]
        return f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"

    def _is_allowed(self, environ: dict[str, Any], policy: Mapping[str, Any]) -> bool:
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"], keep_blank_values=True).items()}
        body = b""
        if "delete" in query:
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = BytesIO(body)
        asked = rights(environ["REQUEST_METHOD"], environ["PATH_INFO"], query, body)
        return all(allows(policy, *right) for right in asked)

    def new_login(self) -> str:
        """Return a password of ECR."""
        password = f"ecr-password-{uuid.uuid4().hex}"
        self.logins.add(password)
        return password

    def _login(self) -> dict[str, Any]:
        password = self.new_login()
        self.given.append(password)
        token = base64.b64encode(f"AWS:{password}".encode()).decode()
        expires_at = time.time() + self.login_seconds
        return {"authorizationData": [{"authorizationToken": token, "expiresAt": expires_at, "proxyEndpoint": "?"}]}


def _error(failing: Failing, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    if environ.get("HTTP_X_AMZ_TARGET"):
        return _json({"__type": failing.code, "message": failing.message}, failing.status, start_response)
    body = f"<R><Error><Code>{failing.code}</Code><Message>{failing.message}</Message></Error></R>".encode()
    start_response(f"{failing.status} .", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _json(document: Any, status: int, start_response: StartResponse) -> Iterable[bytes]:
    body = json.dumps(document).encode()
    headers = [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(body)))]
    start_response(f"{status} .", headers)
    return [body]


@contextmanager
def emulated_aws() -> Iterator[EmulatedAws]:
    """Run the emulation."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    aws = EmulatedAws()
    application = aws.application(DomainDispatcherApplication(create_backend_app))
    handler = aws.clock.request_handler()
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    aws.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield aws
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
