"""Logging in to a registry: a layer under the client, so that what pushes never sees a credential.

::

    request ──► 401, WWW-Authenticate: Basic                     ──► again, with name and password
    request ──► 401, WWW-Authenticate: Bearer realm=…, service=… ──► GET realm?service&scope ──► again, with the token
"""

from __future__ import annotations

import base64
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass

import httpx

from airflow_stepops.errors import RegistryAuthError, RegistryError
from airflow_stepops.images.registry.patience import Interrupted

Credentials = Callable[[], tuple[str, str] | None]


class RenewableCredentials(ABC):
    """Credentials that are kept and grow old."""

    @abstractmethod
    def __call__(self) -> tuple[str, str] | None:
        """Return name and password."""

    @abstractmethod
    def renew(self) -> None:
        """Give others from now on: the registry did not take these."""


#: Key in the extensions of a request for scopes beyond those of its repository.
MORE_SCOPES = "stepops.scopes"

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_DEFAULT_LIFETIME = 60.0


@dataclass(frozen=True)
class _Challenge:
    """Where tokens come from."""

    realm: str
    service: str


@dataclass(frozen=True)
class _Token:
    text: str
    expires_at: float


class RegistryAuth(httpx.Auth):
    """Logs in to one registry for one repository, and keeps tokens until shortly before they expire.

    :param origin: ``scheme://host:port``; nothing is ever sent elsewhere, except to the token service it names.
    :param scope: what tokens are for: ``repository:<path>:pull,push``.
    :param credentials: returns name and password when they are needed, ``None`` for an anonymous user.
    """

    def __init__(self, origin: httpx.URL, scope: str, credentials: Credentials | None) -> None:
        self._origin = origin
        self._scope = scope
        self._credentials = credentials
        self._challenge: _Challenge | None = None
        self._basic: str | None = None
        self._tokens: dict[str, _Token] = {}
        self._lock = threading.RLock()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request with what is known, and once more with what the registry asks for."""
        if not _same_origin(request.url, self._origin):
            yield request
            return
        scopes = (self._scope, *request.extensions.get(MORE_SCOPES, ()))
        used = yield from self._authorization(scopes)
        if used:
            request.headers["Authorization"] = used
        response = yield request
        # What a redirect led to may not name a place to send passwords to.
        if not self._is_refusal(response) or not _same_origin(response.request.url, self._origin):
            return
        with self._lock:
            self._learn(response, used)
            again = yield from self._authorization(scopes)
        if again and again != used:
            request.headers["Authorization"] = again
            yield request

    def _is_refusal(self, response: httpx.Response) -> bool:
        # ECR says 403, without a challenge, to a login that has expired.
        expires = self._challenge is None and isinstance(self._credentials, RenewableCredentials)
        return response.status_code == 401 or (response.status_code == 403 and expires)

    def _learn(self, response: httpx.Response, used: str | None) -> None:
        """Take the registry's challenge, and forget what it did not accept."""
        for challenge in response.headers.get_list("www-authenticate"):
            parameters = {name.lower(): value for name, value in _PARAMETER.findall(challenge)}
            if challenge.lower().startswith("bearer") and parameters.get("realm"):
                self._challenge = _Challenge(parameters["realm"], parameters.get("service", ""))
        self._tokens = {scope: token for scope, token in self._tokens.items() if f"Bearer {token.text}" != used}
        if self._basic == used:
            self._basic = None
            # A registry that has a token service now said no more than to go there, whatever it was sent.
            if used and self._challenge is None and isinstance(self._credentials, RenewableCredentials):
                self._credentials.renew()

    def _authorization(self, scopes: tuple[str, ...]) -> Generator[httpx.Request, httpx.Response, str | None]:
        with self._lock:
            if self._challenge is None:
                # Sent before it is asked for: with a registry that takes it, that saves a request each time.
                self._basic = self._basic or self._basic_header()
                return self._basic
            key = " ".join(scopes)
            token = self._tokens.get(key)
            if token is None or token.expires_at <= time.monotonic():
                token = yield from self._fetch(self._challenge, scopes)
                self._tokens[key] = token
            return f"Bearer {token.text}"

    def _basic_header(self) -> str | None:
        pair = self._credentials() if self._credentials is not None else None
        return None if pair is None else f"Basic {base64.b64encode(':'.join(pair).encode()).decode()}"

    def _fetch(
        self, challenge: _Challenge, scopes: tuple[str, ...]
    ) -> Generator[httpx.Request, httpx.Response, _Token]:
        try:
            realm = httpx.URL(challenge.realm)
        except httpx.InvalidURL as error:
            raise RegistryAuthError(f"{self._origin.host} names a token realm that is no URL: {error}.") from error
        if realm.scheme != "https" and self._origin.scheme == "https":
            raise RegistryAuthError(
                f"{self._origin.host} sends its users to {realm} for tokens, which is not encrypted: no password is "
                "sent there. Correct the registry's token realm."
            )
        parameters = [("service", challenge.service)] if challenge.service else []
        url = realm.copy_merge_params(httpx.QueryParams([*parameters, *(("scope", scope) for scope in scopes)]))
        sent = time.monotonic()
        response = yield self._token_request(url)
        if response.status_code in (401, 403) and isinstance(self._credentials, RenewableCredentials):
            self._credentials.renew()
            response = yield self._token_request(url)
        response.read()
        return self._token(response, realm, sent)

    def _token_request(self, url: httpx.URL) -> httpx.Request:
        basic = self._basic_header()
        return httpx.Request("GET", url, headers={"Authorization": basic} if basic else {})

    def _token(self, response: httpx.Response, realm: httpx.URL, sent: float) -> _Token:
        where = f"token service {realm.host} of registry {self._origin.host}"
        if response.status_code == 429 or response.status_code >= 500:
            raise Interrupted(RegistryError(f"{where} answers {response.status_code}: try again later."))
        try:
            document = response.json() if response.status_code == 200 else {}
            text = document.get("token") or document.get("access_token")
            lifetime = float(document.get("expires_in") or _DEFAULT_LIFETIME)
        except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
            text, lifetime = None, 0.0
        if not isinstance(text, str) or not text:
            raise RegistryAuthError(
                f"{where} gave no token ({response.status_code}): check the registry's login and what it may do."
            )
        return _Token(text, sent + lifetime * 0.9)


def _same_origin(url: httpx.URL, origin: httpx.URL) -> bool:
    return (url.scheme, url.host, url.port) == (origin.scheme, origin.host, origin.port)
