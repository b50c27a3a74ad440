"""What ACR does in front of a registry: tokens of Entra ID are exchanged for logins, which end."""

from __future__ import annotations

import base64
import time
import uuid
from dataclasses import dataclass, field

import httpx
import jwt
from werkzeug import Request, Response

from tests.clouds.azure.emulated import TENANT, EmulatedAzure
from tests.images.token_service import SERVICE, TokenService

USER = "00000000-0000-0000-0000-000000000000"
ARM, REGISTRIES = "arm", "https://containerregistry.azure.net"


@dataclass
class Acr:
    """A running registry.

    :param registry: ``host:port`` of the registry that has the images, which checks tokens.
    :param logins: refresh token → client id.
    :param login_seconds: how long they are good for.
    :param given: refresh tokens so far.
    :param takes: ends of what tokens of Entra ID may be for.
    :param denied: client ids that it does not know.
    :param tokens: what signs tokens for who asks ACR itself for them.
    """

    azure: EmulatedAzure
    registry: str = ""
    logins: dict[str, str] = field(default_factory=dict)
    login_seconds: float = 3 * 3600.0
    given: list[str] = field(default_factory=list)
    takes: tuple[str, ...] = (ARM, REGISTRIES)
    denied: set[str] = field(default_factory=set)
    passwords: dict[str, str] = field(default_factory=dict)
    tokens: TokenService | None = None

    def user_of(self, authorization: str) -> str | None:
        """Return who sends an Authorization header; ``""`` for nobody, ``None`` for a login that is not good."""
        if not authorization:
            return ""
        user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if user == USER:
            return self.logins.get(password)
        return user if self.passwords.get(user, "") == password else None

    def answer(self, request: Request) -> Response:
        """Answer a request, or let the registry do so."""
        if request.path == "/oauth2/exchange":
            return self._exchange(request)
        if request.path == "/oauth2/token" and self.tokens is not None:
            return self._token(request, self.tokens)
        body = request.get_data()
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
        found = httpx.request(
            request.method, f"http://{self.registry}{request.full_path}", headers=headers, content=body
        )
        kept = {name: value for name, value in found.headers.items() if name not in ("connection", "transfer-encoding")}
        return Response(found.content, found.status_code, kept)

    def _exchange(self, request: Request) -> Response:
        form = request.form
        assert (form["grant_type"], form.get("tenant", TENANT)) == ("access_token", TENANT)
        assert form["service"] in (request.host, SERVICE)  # ours knows its host, Microsoft's repeats the challenge
        client, resource, ends = self.azure.tokens.get(form["access_token"], ("", "", 0.0))
        if ends <= time.time() or client in self.denied or not resource.endswith(self.takes):
            return Response('{"errors": [{"code": "UNAUTHORIZED", "message": "Please perform AAD auth."}]}', 401)
        claims = {"jti": uuid.uuid4().hex, "sub": client, "exp": int(time.time() + self.login_seconds)}
        login = jwt.encode(claims, "nobody but the registry knows this key", algorithm="HS256")
        self.logins[login] = client
        self.given.append(login)
        return Response(f'{{"refresh_token": "{login}"}}', content_type="application/json")

    def _token(self, request: Request, tokens: TokenService) -> Response:
        form = request.form
        user = self.logins.get(form["refresh_token"])
        if user is None:
            return Response('{"errors": [{"code": "UNAUTHORIZED"}]}', 401)
        token = tokens.token(user, form["scope"].split(" "))
        return Response(f'{{"access_token": "{token}"}}', content_type="application/json")
