"""Azure in this process: Entra ID that gives tokens, and APIs behind one address with TLS that may fail."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
from werkzeug import Request, Response

from tests.clouds.clock import Clock
from tests.clouds.gcp.emulated import Answer, Api, Call, Failing, serving
from tests.engines import CACHE, free_port, running, wait_until
from tests.images.certificates import signed_by_authority

TENANT = "7f9d3e0a-1b52-4f0a-9c8e-2f6a5d4c3b2a"
SUBSCRIPTION = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
CLIENT = "c1a0e6c6-5f0b-4f0e-8f52-8a7a5b6c7d8e"
SECRET = "Emu8Q~lated.secret-of-azure"
#: Of the machine that a job runs on.
IDENTITY = "d2b1f7d7-6a1c-4a1f-9a63-9b8b6c7d8e9f"
MSI_SECRET = "of-the-node"
ADDRESS = "127.0.0.2"
ACCOUNT = "devstoreaccount1"
#: Azurite's own, which Microsoft publishes.
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_SIGNED_WITH = "nobody but the emulated Entra ID knows it"


@dataclass
class EmulatedAzure:
    """A running emulation.

    :param authority: file of the certificate of who signed that of the servers.
    :param tls: files of the servers' certificate and its key.
    :param url: of Entra ID; that of another service is ``<url>/<service>``.
    :param blob_url: of the storage account ``ACCOUNT``, with TLS: tokens are looked at.
    :param apis: name of a service, such as ``arm`` for Resource Manager → what answers its calls.
    :param calls: that came so far.
    :param tokens: access token → client id, what it is for, and when it ends.
    :param grants: scopes of the tokens so far.
    :param token_seconds: how long access tokens are good for.
    :param secrets: client id → secret of a service principal.
    :param open_to_all: services that answer calls without a token.
    :param clock: of all services but Blob Storage.
    """

    authority: Path
    tls: tuple[Path, Path]
    url: str = ""
    blob_url: str = ""
    apis: dict[str, Api] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    tokens: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    grants: list[str] = field(default_factory=list)
    token_seconds: float = 3600.0
    secrets: dict[str, str] = field(default_factory=lambda: {CLIENT: SECRET})
    open_to_all: set[str] = field(default_factory=lambda: {"", "msi"})
    clock: Clock = field(default_factory=Clock)
    _failing: list[Failing] = field(default_factory=list)

    @property
    def endpoints(self) -> dict[str, str]:
        """Where the cloud is, for the extra of a connection."""
        return {"active_directory": self.url, "resource_manager": f"{self.url}/arm"}

    @property
    def identity(self) -> dict[str, str]:
        """Variables that Azure ML gives to a job, for the identity of its machine."""
        return {"MSI_ENDPOINT": f"{self.url}/msi", "MSI_SECRET": MSI_SECRET, "DEFAULT_IDENTITY_CLIENT_ID": IDENTITY}

    def connection(self, login: str | None = CLIENT, password: str | None = SECRET, **extra: Any) -> str:
        """Return an Airflow connection as an AIRFLOW_CONN_… variable holds it."""
        usual = {"tenantId": TENANT, "subscriptionId": SUBSCRIPTION, "cloud_endpoints": self.endpoints}
        return json.dumps({"conn_type": "azure", "login": login, "password": password, "extra": {**usual, **extra}})

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
    ) -> Failing:
        """Answer the next calls with an error as Azure words it; ``times = 0`` on the returned object ends it.

        :param path: regular expression, searched in the path.
        """
        document = {"error": {"code": code, "message": message}}
        return self.answer_with(service, path, lambda: (status, document), method=method, times=times)

    def answer_with(
        self, service: str, path: str, answer: Callable[[], Answer], *, method: str = "", times: int = 1000
    ) -> Failing:
        """Answer the next calls with something else; the function may raise ``Reset``."""
        failing = Failing(service, method, path, times, answer)
        self._failing.append(failing)
        return failing

    def make_container(self, name: str) -> None:
        """Make a container of the storage account."""
        token = self.new_token("tests", "https://storage.azure.com")
        headers = {"Authorization": f"Bearer {token}", "x-ms-version": "2023-11-03"}
        verify = httpx.create_ssl_context(str(self.authority))
        url = f"{self.blob_url}/{name}?restype=container"
        assert httpx.put(url, headers=headers, verify=verify).status_code == 201

    def count(self, service: str, method: str = "", path: str = "") -> int:
        """Return how many calls of a service came."""
        return sum(call.service == service and _fits(call, method, path) for call in self.calls)

    def revoke(self) -> None:
        """Make all tokens of today bad."""
        self.tokens.clear()

    def caller(self, token: str) -> str:
        """Return the client id of who has a token, ``""`` for one that is not good."""
        client, _, ends = self.tokens.get(token, ("", "", 0.0))
        return client if ends > time.time() else ""

    def new_token(self, client: str, resource: str) -> str:
        """Make an access token.

        :param resource: what it is for.
        """
        ends = time.time() + self.token_seconds
        claims = {"iss": f"https://sts.windows.net/{TENANT}/", "aud": resource, "appid": client, "tid": TENANT}
        claims |= {"iat": int(time.time()), "nbf": int(time.time()) - 5, "exp": int(ends) + 5, "jti": uuid.uuid4().hex}
        token = jwt.encode(claims, _SIGNED_WITH, algorithm="HS256")
        self.tokens[token] = (client, resource, ends)
        self.grants.append(resource)
        return token

    def answer(self, request: Request) -> Response:
        """Answer a request."""
        first, _, rest = request.path.lstrip("/").partition("/")
        service, path = (first, f"/{rest}") if first in self.apis else ("", request.path)
        headers = {name.lower(): value for name, value in request.headers.items()}
        caller = self.caller(headers.get("authorization", "").removeprefix("Bearer "))
        query = {name: values[0] for name, values in parse_qs(request.query_string.decode(), True).items()}
        call = Call(service, request.method, path, query, headers, request.get_data(), caller)
        self.calls.append(call)
        for plan in self._failing:
            if plan.times > 0 and plan.service == service and _fits(call, plan.method, plan.path):
                plan.times -= 1
                return _response(plan.answer())
        if service not in self.open_to_all and not caller:
            said = "The access token expiry UTC time is earlier than current UTC time."
            return _response((401, {"error": {"code": "ExpiredAuthenticationToken", "message": said}}))
        return _response(self._entra(call) if not service else self.apis[service](call))

    def _entra(self, call: Call) -> Answer:
        """Entra ID: what MSAL asks of it."""
        place = f"{self.url}/{TENANT}"
        if call.path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            found = {"issuer": f"{place}/v2.0", "authorization_endpoint": f"{place}/oauth2/v2.0/authorize"}
            return 200, {**found, "token_endpoint": f"{place}/oauth2/v2.0/token"}
        if call.path != f"/{TENANT}/oauth2/v2.0/token":
            return 400, {"error": "invalid_tenant", "error_description": "AADSTS90002: Tenant not found."}
        form = {name: values[0] for name, values in parse_qs(call.body.decode()).items()}
        client, resource = form["client_id"], form["scope"].split()[0].removesuffix("/.default")
        assert form["grant_type"] == "client_credentials"
        if self.secrets.get(client) != form["client_secret"]:
            said = f"AADSTS7000215: Invalid client secret provided for app '{client}'. Trace ID: 8c1 Timestamp: now"
            return 401, {"error": "invalid_client", "error_description": said, "error_codes": [7000215]}
        token = self.new_token(client, resource)
        return 200, {"token_type": "Bearer", "expires_in": int(self.token_seconds), "access_token": token}


def node_identity(azure: EmulatedAzure) -> Api:
    """Return what gives a job of Azure ML the tokens of its machine's identity."""

    def answer(call: Call) -> Answer:
        if call.headers.get("secret") != MSI_SECRET or call.query["api-version"] != "2017-09-01":
            return 403, None
        # Without a client id, or with one that is none, Azure ML gives tokens of whoever submitted the job.
        client = call.query.get("clientid", "")
        token = azure.new_token(client if client == IDENTITY else "submitter", call.query["resource"])
        return 200, {"access_token": token, "expires_on": str(int(time.time() + azure.token_seconds))}

    return answer


@contextmanager
def emulated_azure(folder: Path) -> Iterator[EmulatedAzure]:
    """Run the emulation.

    :param folder: for its certificate.
    """
    names = ("key.pem", "certificate.pem", "authority.pem")
    key, certificate, authority = (folder / name for name in names)
    for file, text in zip((key, certificate, authority), signed_by_authority("emulated Azure"), strict=True):
        file.write_bytes(text)
    azure = EmulatedAzure(authority, (certificate, key))
    azure.apis["msi"] = node_identity(azure)
    with serving(azure.answer, ADDRESS, certificate=(str(certificate), str(key)), clock=azure.clock) as azure.url:
        yield azure


@contextmanager
def running_azurite(folder: Path, azure: EmulatedAzure | None = None) -> Iterator[str]:
    """Run Blob Storage, and give the URL of the account ``ACCOUNT``.

    :param folder: for its log.
    :param azure: whose certificate it has; with it tokens of Entra ID open it, and else keys alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host, port = ADDRESS if azure else "127.0.0.1", free_port()
    program = CACHE / "azurite" / "node_modules" / ".bin" / "azurite-blob"
    assert program.exists(), f"{program} is missing: npm install --prefix {CACHE / 'azurite'} azurite@3"
    options = ["--blobHost", host, "--blobPort", str(port), "--inMemoryPersistence"]
    options += ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    if azure:
        options += ["--oauth", "basic", "--cert", str(azure.tls[0]), "--key", str(azure.tls[1])]
    url = f"{'https' if azure else 'http'}://{host}:{port}/{ACCOUNT}"
    verify = httpx.create_ssl_context(str(azure.authority)) if azure else True
    with running(str(program), *options, environment=dict(os.environ), log=folder / "log"):
        wait_until(lambda: httpx.get(url, verify=verify).status_code, "Azurite", folder / "log")
        yield url


def _fits(call: Call, method: str, path: str) -> bool:
    return method in ("", call.method) and re.search(path, call.path) is not None


def _response(answer: Answer) -> Response:
    if isinstance(answer, Response):
        return answer
    status, document = answer
    return Response(json.dumps(document), status, content_type="application/json")
