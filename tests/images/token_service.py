"""The token service of a registry: checks a password and signs what the registry then checks."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.images.certificates import self_signed

SERVICE = "registry.test"
ISSUER = "stepops tests"


@dataclass
class TokenService:
    """A running service.

    :param url: its realm.
    :param certificate: file that the registry checks tokens with.
    :param passwords: user → password.
    :param readers: users that may not push.
    :param lifetime: seconds of a token.
    :param asked: scopes of the requests so far, and who asked.
    :param failures: status codes to answer with first.
    """

    url: str
    certificate: Path
    key: bytes
    passwords: dict[str, str] = field(default_factory=lambda: {"pusher": "s3cret/word", "reader": "r"})
    readers: set[str] = field(default_factory=lambda: {"reader"})
    lifetime: int = 300
    asked: list[tuple[str, list[str]]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)

    @property
    def host(self) -> str:
        """Where it is: ``host:port``."""
        return urlsplit(self.url).netloc

    @property
    def auth(self) -> dict[str, Any]:
        """The ``auth`` section of the registry's configuration."""
        return self.auth_at(self.host)

    def auth_at(self, host: str) -> dict[str, Any]:
        """Return :attr:`auth` for a registry that sends its users elsewhere, such as to a proxy before the service."""
        realm = urlsplit(self.url)._replace(netloc=host).geturl()
        token = {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(self.certificate)}
        return {"token": token}

    def user_of(self, authorization: str) -> str | None:
        """Return who sends an Authorization header; ``""`` for nobody, ``None`` for a wrong password."""
        if not authorization:
            return ""
        user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        return user if self.passwords.get(user) == password else None

    def token(self, user: str, scopes: list[str]) -> str:
        """Sign a token for what the user may do of what was asked."""
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = {"pull"} if user in self.readers else {"pull", "push"} if user else set()
            access.append({"type": kind, "name": name, "actions": sorted(set(actions.split(",")) & allowed)})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "iat": now, "nbf": now - 5, "exp": now + self.lifetime}
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        return jwt.encode(
            {**claims, "jti": uuid.uuid4().hex, "access": access}, self.key, algorithm="RS256", headers={"x5c": [der]}
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: TokenService

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        scopes = query.get("scope", [])
        user = self.service.user_of(self.headers.get("Authorization", ""))
        self.service.asked.append((user or "", scopes))
        if self.service.failures:
            self._answer(self.service.failures.pop(0), {})
        elif user is None or query.get("service") != [SERVICE]:
            self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})
        else:
            self._answer(200, {"token": self.service.token(user, scopes), "expires_in": self.service.lifetime})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@contextmanager
def token_service(folder: Path) -> Iterator[TokenService]:
    """Run a token service; its certificate is written into the folder."""
    packed, certificate = self_signed(ISSUER)
    file = folder / "token.pem"
    file.write_bytes(certificate)
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    service = TokenService(f"http://127.0.0.1:{server.server_address[1]}/token", file, packed)
    handler.service = service
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
