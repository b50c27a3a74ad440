"""Requests to one registry: connections, patience with what fails for now, and errors that say what to do."""

from __future__ import annotations

import email.utils
import re
import ssl
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import httpx

from airflow_stepops.errors import RegistryAuthError, RegistryError
from airflow_stepops.images.registry.auth import MORE_SCOPES, Credentials, RegistryAuth
from airflow_stepops.images.registry.blobs import DOCUMENT_BYTES
from airflow_stepops.images.registry.patience import Interrupted, Patience

_DOCKER_HUB = ("docker.io", "registry-1.docker.io")
#: Seconds for connecting, and for each wait of a request.
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
_CONNECTIONS = 16
_TLS_ADVICE = {
    "CERTIFICATE_VERIFY_FAILED": "If its certificate is of an authority of your own, name that one's file in "
    "SSL_CERT_FILE.",
    "WRONG_VERSION_NUMBER": "If it speaks plain HTTP only, set 'insecure: true' for the registry in the stack.",
}


class RegistrySession:
    """Connections to one registry for the work on one repository. Safe to use from several threads.

    :param registry: host, with its port where it has one.
    :param scope: what the work needs: ``repository:<path>:pull,push``.
    :param insecure: speak plain HTTP, which is always done with this machine itself.
    """

    def __init__(self, registry: str, scope: str, credentials: Credentials | None, insecure: bool) -> None:
        host = _DOCKER_HUB[1] if registry == _DOCKER_HUB[0] else registry
        self._is_here = httpx.URL(f"//{host}").host in ("localhost", "127.0.0.1", "::1")
        self.registry = registry
        self.origin = httpx.URL(f"{'http' if insecure or self._is_here else 'https'}://{host}")
        self._auth = RegistryAuth(self.origin, scope, credentials)
        self._count = 0
        self._counting = threading.Lock()

    @property
    def requests(self) -> int:
        """Number of requests sent so far, tokens and redirects included."""
        return self._count

    def send(
        self,
        method: str,
        url: str,
        *,
        expect: Collection[int],
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        scopes: tuple[str, ...] = (),
    ) -> httpx.Response:
        """Send a request that may be sent again, until it works or patience ends.

        :param url: absolute, or a path at the registry.
        :param expect: status codes that are an answer.
        :param scopes: what it needs beyond the session's scope.
        :raises RegistryError: for every other answer, and for none.
        """
        patience = Patience()
        while True:
            try:
                return self.send_once(method, url, expect=expect, headers=headers, content=content, scopes=scopes)
            except Interrupted as interruption:
                patience.wait(interruption)

    def send_once(
        self,
        method: str,
        url: str,
        *,
        expect: Collection[int],
        headers: Mapping[str, str] | None = None,
        content: bytes | httpx.SyncByteStream | None = None,
        scopes: tuple[str, ...] = (),
    ) -> httpx.Response:
        """Send a request once.

        :param content: a stream must come with a Content-Length.
        :raises Interrupted: when it may work later.
        :raises RegistryError: when it cannot.
        """
        with self.stream(method, url, expect=expect, headers=headers, content=content, scopes=scopes) as response:
            response.stream = _Bounded(response)
            response.read()
            return response

    @contextmanager
    def stream(
        self,
        method: str,
        url: str,
        *,
        expect: Collection[int],
        headers: Mapping[str, str] | None = None,
        content: bytes | httpx.SyncByteStream | None = None,
        scopes: tuple[str, ...] = (),
    ) -> Iterator[httpx.Response]:
        """Send a request once and give the answer before its body is read.

        :raises Interrupted: when it may work later; also while the body is read in the block.
        :raises RegistryError: when it cannot.
        """
        body = content if isinstance(content, bytes) else None
        extensions: dict[str, Any] = {MORE_SCOPES: scopes}
        request = self._client.build_request(
            method, self.origin.join(url), headers=dict(headers or {}), content=body, extensions=extensions
        )
        if isinstance(content, httpx.SyncByteStream):
            request.stream = content
        try:
            response = self._sent(request, follow_redirects=method in ("GET", "HEAD"))
            try:
                if response.status_code not in expect:
                    raise self.refused(response)
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._interrupted(method, url, error) from error
        except httpx.TooManyRedirects as error:
            raise RegistryError(f"{self.registry}: {method} {url} is redirected in circles.") from error

    def _sent(self, request: httpx.Request, follow_redirects: bool) -> httpx.Response:
        try:
            return self._client.send(request, stream=True, follow_redirects=follow_redirects)
        except (httpx.InvalidURL, UnicodeError) as error:  # where it sends us, or a token of its token service
            raise RegistryError(f"{self.registry}: its answer cannot be understood: {error}.") from error

    @cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(
            auth=self._auth,
            verify=_tls(),
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None),
            # A proxy of the environment does not know this machine.
            trust_env=not self._is_here,
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            # Compressed answers would change what is counted and hashed.
            headers={"User-Agent": "airflow-stepops", "Accept-Encoding": "identity"},
            event_hooks={"request": [self._counted]},
        )

    def _counted(self, _: httpx.Request) -> None:
        with self._counting:
            self._count += 1

    def _interrupted(self, method: str, url: str, error: httpx.TransportError) -> Interrupted | RegistryError:
        """Return what to raise for a connection that failed; what TLS refuses gets no better by waiting."""
        what = f"{self.registry}: {method} {_without_query(url)} got no answer ({type(error).__name__}: {error})."
        for sign, advice in _TLS_ADVICE.items():
            if sign in str(error):
                return RegistryError(f"{what} {advice}")
        return Interrupted(RegistryError(f"{what} Check the registry's address and that this worker can reach it."))

    def refused(self, response: httpx.Response) -> RegistryError | Interrupted:
        """Return what to raise for an answer that is not wanted."""
        status = response.status_code
        response.stream = _Bounded(response)
        said = _reason(response)
        what = f"{self.registry}: {response.request.method} {response.request.url.path} answers {status}{said}"
        if status in (401, 403):
            return RegistryAuthError(
                f"{what}. Check the registry's login, and that it may pull and push there"
                " (and that the repository exists)."
            )
        if status in (408, 429) or status >= 500:
            return Interrupted(RegistryError(f"{what}. Try again later."), _retry_after(response))
        if status == 404:
            return RegistryError(f"{what}. Check the name; some registries want a repository to be made first.")
        return RegistryError(f"{what}.")


class _Bounded(httpx.SyncByteStream):
    """The body of an answer that is read into memory: no more of it than a document may have."""

    def __init__(self, response: httpx.Response) -> None:
        assert isinstance(response.stream, httpx.SyncByteStream)
        self._stream = response.stream
        self._url = str(response.request.url)

    def __iter__(self) -> Iterator[bytes]:
        count = 0
        for chunk in self._stream:
            count += len(chunk)
            if count > DOCUMENT_BYTES:
                raise RegistryError(f"{_without_query(self._url)} answers with more than {DOCUMENT_BYTES} bytes.")
            yield chunk

    def close(self) -> None:
        self._stream.close()


@cache
def _tls() -> ssl.SSLContext:
    # Reading all root certificates takes 20 ms: once in a process is enough.
    return httpx.create_ssl_context()


def _reason(response: httpx.Response) -> str:
    """Return what the registry says about an error, as `` (CODE: message)``."""
    try:
        response.read()
        errors = response.json()["errors"]
        said = "; ".join(f"{error.get('code')}: {error.get('message')}" for error in errors)
    except (httpx.TransportError, RegistryError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return f" ({said})" if said else ""


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that the answer asks to wait: a number, or a date."""
    text = response.headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _without_query(url: str) -> str:
    """Signed links carry secrets behind the question mark."""
    return url.partition("?")[0]
