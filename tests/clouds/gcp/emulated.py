"""Google Cloud in this process: tokens that end, APIs behind one address, calls that fail."""

from __future__ import annotations

import json
import logging
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from werkzeug import Request, Response
from werkzeug.serving import make_server

from tests.clouds.clock import Clock

PROJECT = "steps-on-vertex"
WORKER = f"worker@{PROJECT}.iam.gserviceaccount.com"
JOB = f"job@{PROJECT}.iam.gserviceaccount.com"
#: Of tokens: for all APIs, and for no more than to become another account.
SCOPES = ("https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/iam")


@dataclass(frozen=True)
class Call:
    """A call that came.

    :param service: name of the API, such as ``artifactregistry``; ``""`` for those that give tokens.
    :param path: behind the service's address, with a slash in front.
    :param query: the first value of each parameter.
    :param headers: names in lower case.
    :param caller: email of who calls; ``""`` for nobody.
    """

    service: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    caller: str

    @cached_property
    def json(self) -> Any:
        """The document that was sent."""
        return json.loads(self.body or b"{}")


Answer = Response | tuple[int, Any]
#: An API: answers a call with a response, or a status and a JSON document.
Api = Callable[[Call], Answer]


@dataclass
class Failing:
    """What the next calls are answered with; ``times = 0`` ends it."""

    service: str
    method: str
    path: str
    times: int
    answer: Callable[[], Answer]


class Reset(Exception):
    """Close the connection without an answer."""


@dataclass
class EmulatedGcp:
    """A running emulation.

    :param url: of all APIs: that of a service is at ``<url>/<service>``.
    :param storage_url: of Cloud Storage, which has an address of its own.
    :param apis: name of a service → what answers its calls.
    :param calls: that came so far.
    :param token_seconds: how long access tokens are good for.
    :param grants: how tokens were asked for so far: ``key``, ``federation``, ``impersonation``, ``metadata``.
    :param disabled: emails of service accounts that get no tokens.
    :param open_to_all: services that answer calls without a token.
    :param clock: of all services.
    """

    url: str = ""
    storage_url: str = ""
    apis: dict[str, Api] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    token_seconds: float = 3600.0
    tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    grants: list[str] = field(default_factory=list)
    disabled: set[str] = field(default_factory=set)
    open_to_all: set[str] = field(default_factory=set)
    clock: Clock = field(default_factory=Clock)
    _failing: list[Failing] = field(default_factory=list)

    @cached_property
    def private_key(self) -> rsa.RSAPrivateKey:
        """Of the service accounts."""
        return rsa.generate_private_key(65537, 2048)

    def key(self, email: str = WORKER, **changes: Any) -> dict[str, Any]:
        """Return the key file of a service account."""
        private = self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "of-tests",
            "private_key": private.decode(),
            "client_email": email,
            "token_uri": f"{self.url}/token",
            **changes,
        }

    def federation(self, subject_token_file: str, email: str | None = None) -> dict[str, Any]:
        """Return the configuration of a workload that is another cloud's; with an email it becomes that account."""
        impersonation = {"service_account_impersonation_url": self.impersonation_url(email)} if email else {}
        return {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/tests/providers/tests",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.url}/sts",
            "credential_source": {"file": subject_token_file},
            **impersonation,
        }

    def impersonation_url(self, email: str) -> str:
        """Return where tokens of another account are asked for."""
        return f"{self.url}/iamcredentials/v1/projects/-/serviceAccounts/{email}:generateAccessToken"

    @property
    def overrides(self) -> dict[str, str]:
        """Where the APIs are, for the extra of a connection."""
        services = ("artifactregistry", "aiplatform", "logging", "iam", "cloudresourcemanager", "compute")
        storage = {"storage": self.storage_url} if self.storage_url else {}
        return storage | {service: f"{self.url}/{service}" for service in services}

    def fail(
        self,
        service: str,
        path: str,
        status: int,
        code: str = "",
        message: str = "no",
        *,
        method: str = "",
        times: int = 1000,
        details: Any = None,
    ) -> Failing:
        """Answer the next calls with an error as Google words it; ``times = 0`` on the returned object ends it.

        :param path: regular expression, searched in the path.
        :param status: HTTP status.
        :param method: of HTTP; default: any.
        """
        error = {"code": status, "message": message, "status": code, **({"details": details} if details else {})}
        return self._plan(service, path, method, times, lambda: (status, {"error": error}))

    def answer_with(
        self, service: str, path: str, response: Callable[[], Answer], *, method: str = "", times: int = 1000
    ) -> Failing:
        """Answer the next calls with something else; the function may raise :class:`Reset`."""
        return self._plan(service, path, method, times, response)

    def count(self, service: str, method: str = "", path: str = "") -> int:
        """Return how many calls of a service came."""
        return sum(_fits(call, service, method, path) for call in self.calls)

    def revoke(self) -> None:
        """Make all tokens of today bad."""
        self.tokens.clear()

    def caller(self, authorization: str) -> str | None:
        """Return who sends an Authorization header, ``None`` for nobody that is known."""
        kind, _, token = authorization.partition(" ")
        if kind != "Bearer":
            return None
        if token.count(".") == 2:
            return self._signer_of(token)
        email, ends = self.tokens.get(token, ("", 0.0))
        return email if ends > time.time() else None

    def new_token(self, email: str, grant: str) -> dict[str, Any]:
        """Make an access token, and the answer of a token endpoint that holds it."""
        token = f"ya29.{uuid.uuid4().hex}"
        self.tokens[token] = (email, time.time() + self.token_seconds)
        self.grants.append(grant)
        return {"access_token": token, "expires_in": int(self.token_seconds), "token_type": "Bearer"}

    def answer(self, request: Request, service: str, path: str) -> Response:
        """Answer a request.

        :param path: behind the service's address.
        """
        headers = {name.lower(): value for name, value in request.headers.items()}
        caller = self.caller(headers.get("authorization", ""))
        query = {name: values[0] for name, values in parse_qs(request.query_string.decode(), True).items()}
        call = Call(service, request.method, path, query, headers, request.get_data(), caller or "")
        self.calls.append(call)
        planned = next((plan for plan in self._failing if plan.times > 0 and _is_of(call, plan)), None)
        if planned is not None:
            planned.times -= 1
            return _response(planned.answer())
        if service and caller is None and service not in self.open_to_all:
            said = "Request had invalid authentication credentials."
            return _response((401, {"error": {"code": 401, "message": said, "status": "UNAUTHENTICATED"}}))
        api = self.apis.get(service)
        return _response(api(call) if api else (404, None))

    def _plan(self, service: str, path: str, method: str, times: int, answer: Callable[[], Answer]) -> Failing:
        failing = Failing(service, method, path, times, answer)
        self._failing.append(failing)
        return failing

    def _signer_of(self, token: str) -> str | None:
        """Return the account of a token that its owner signed, as Google's APIs take it beside their own."""
        try:
            claims = jwt.decode(
                token, self.private_key.public_key(), ["RS256"], options={"verify_aud": False, "require": ["exp"]}
            )
        except jwt.InvalidTokenError:
            return None
        return str(claims["iss"])


def token_endpoints(gcp: EmulatedGcp) -> Api:
    """Return what gives tokens: for signed assertions at ``/token``, for those of another cloud at ``/sts``."""

    def answer(call: Call) -> Answer:
        form = {name: values[0] for name, values in parse_qs(call.body.decode()).items()}
        if call.path == "/sts":
            issued = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
            if form["subject_token"] != "of another cloud":
                return 400, {"error": "invalid_grant", "error_description": "The subject token is not known."}
            return 200, {**gcp.new_token("federated", "federation"), **issued}
        claims = jwt.decode(form["assertion"], gcp.private_key.public_key(), ["RS256"], options={"verify_aud": False})
        if claims["iss"] in gcp.disabled:
            return 400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"}
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        assert claims["scope"] in SCOPES
        return 200, gcp.new_token(claims["iss"], "key")

    return answer


def iam_credentials(gcp: EmulatedGcp) -> Api:
    """Return the API that gives tokens of other service accounts."""

    def answer(call: Call) -> Answer:
        asked = re.fullmatch(r"/v1/projects/-/serviceAccounts/(.+):generateAccessToken", call.path)
        assert asked is not None
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + gcp.token_seconds))
        return 200, {"accessToken": gcp.new_token(asked[1], "impersonation")["access_token"], "expireTime": ends}

    return answer


@contextmanager
def serving(
    answer: Callable[[Request], Response],
    host: str = "127.0.0.1",
    port: int = 0,
    certificate: tuple[str, str] | None = None,
    clock: Clock | None = None,
) -> Iterator[str]:
    """Serve for the time of the block, and give the URL.

    :param certificate: files of a certificate and its key, to serve with TLS.
    :param clock: of the server; default: this machine's.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        try:
            return answer(Request(environ))(environ, start_response)
        except Reset:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError("as planned") from None

    handler = (clock or Clock()).request_handler()
    server = make_server(host, port, application, threaded=True, request_handler=handler, ssl_context=certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _metadata(gcp: EmulatedGcp, email: str, request: Request) -> Response:
    place = "/computeMetadata/v1/instance/service-accounts/default/"
    if request.headers.get("Metadata-Flavor") != "Google":
        return Response("", 403)
    if request.path == f"{place}token":
        return _response((200, gcp.new_token(email, "metadata")))
    return Response(email, 200 if request.path == f"{place}email" else 404)


@contextmanager
def metadata_server(gcp: EmulatedGcp, email: str = JOB) -> Iterator[str]:
    """Run what gives a machine the tokens of its service account, and give its address.

    It has to be at port 80 of ``metadata.google.internal``: see :func:`hosts_with`.
    """
    address = "127.80." + ".".join(str(random.randint(1, 254)) for _ in range(2))
    with serving(partial(_metadata, gcp, email), address, 80):
        yield address


def hosts_with(address: str) -> str:
    """Return an ``/etc/hosts`` in which the metadata server is at an address."""
    return f"127.0.0.1 localhost\n{address} metadata.google.internal\n"


@contextmanager
def emulated_gcp() -> Iterator[EmulatedGcp]:
    """Run the emulation."""
    gcp = EmulatedGcp()
    gcp.apis |= {"": token_endpoints(gcp), "iamcredentials": iam_credentials(gcp)}

    def answer(request: Request) -> Response:
        service, slash, rest = request.path.lstrip("/").partition("/")
        return gcp.answer(request, service, f"/{rest}") if slash else gcp.answer(request, "", request.path)

    with serving(answer, clock=gcp.clock) as gcp.url:
        yield gcp


def _is_of(call: Call, plan: Failing) -> bool:
    return _fits(call, plan.service, plan.method, plan.path)


def _fits(call: Call, service: str, method: str, path: str) -> bool:
    return call.service == service and method in ("", call.method) and re.search(path, call.path) is not None


def _response(answer: Answer) -> Response:
    if isinstance(answer, Response):
        return answer
    status, document = answer
    return Response(json.dumps(document), status, content_type="application/json")


def error(status: int, code: str, message: str, **more: Any) -> tuple[int, Mapping[str, Any]]:
    """Return an answer that is an error as Google words it."""
    return status, {"error": {"code": status, "message": message, "status": code, **more}}
