"""Calls to Google's APIs with the credentials of an Airflow connection of type ``google_cloud_platform``.

What a connection opens is kept for a quarter of an hour in each process: after that a changed connection is noticed.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from airflow_stepops.errors import StackError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

    from airflow_stepops.jobs.clock import ServiceClock

_DEFAULT_CONNECTION = "google_cloud_default"
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_KEPT_SECONDS = 15 * 60.0
#: A token is not used so shortly before its end.
_MARGIN = timedelta(minutes=5)
#: For connecting, and for each wait of a call.
ANSWER_SECONDS = 30.0
_UNIVERSE = "googleapis.com"
#: Of the connection's extra: where credentials come from.
_KEYS = ("key_path", "credential_config_file", "key_secret_name", "key_secret_project_id", "is_anonymous")
_OF_IDENTITY_PROVIDER = ("idp_issuer_url", "client_id", "client_secret")
_OLD_PREFIX = "extra__google_cloud_platform__"


class Account:
    """What one connection opens. Safe to use from several threads.

    :param connection: id of an Airflow connection of type ``google_cloud_platform``; ``None`` for
        ``google_cloud_default`` where there is one, and else the application default credentials: variable, gcloud's
        login, service account of the machine.
    :param project: id of a project; ``None`` for the connection's, and else that of the credentials.
    :raises StackError: if there is no such connection, it is not valid, or Airflow's Google provider is not installed.
    :raises RefusedCallError: of kind PERMISSION, if there are no credentials.
    """

    def __init__(self, connection: str | None, project: str | None) -> None:
        extra = _extra(connection)
        self._connection = connection
        self._credentials, found = _credentials(connection or _DEFAULT_CONNECTION, extra)
        self._project = project or _field(extra, "project") or found
        self._overrides = _overrides(connection or _DEFAULT_CONNECTION, extra)
        self._client = httpx.Client(headers={"User-Agent": _user_agent()}, timeout=ANSWER_SECONDS)
        self._lock = threading.Lock()
        self._made_at = time.monotonic()

    @property
    def is_recent(self) -> bool:
        """Whether the connection was read a short time ago."""
        return time.monotonic() - self._made_at < _KEPT_SECONDS

    @property
    def project(self) -> str:
        """Id of the project.

        :raises StackError: if nobody names one.
        """
        if not self._project:
            raise StackError(
                f"no Google Cloud project is named: give 'project' in the stack, or 'project' in the extra of the "
                f"Airflow connection {self._connection or _DEFAULT_CONNECTION!r}."
            )
        return self._project

    @property
    def is_anonymous(self) -> bool:
        """Whether the connection says that there are no credentials, for emulators."""
        from google.auth.credentials import AnonymousCredentials

        return isinstance(self._credentials, AnonymousCredentials)

    @property
    def service_account(self) -> str:
        """Email of the service account that calls are made as; ``""`` if the credentials do not tell."""
        email = getattr(self._credentials, "service_account_email", None)
        return email if isinstance(email, str) and "@" in email else ""

    def override(self, service: str) -> str | None:
        """Return the URL at which the connection says a service is, without a slash at its end; ``None`` for Google.

        :param service: key in ``api_endpoint_overrides`` of the connection's extra.
        """
        return self._overrides.get(service, "").rstrip("/") or None

    def endpoint(self, service: str, location: str | None = None) -> str:
        """Return the URL at which the API of a service is, without a slash at its end.

        :param service: first part of the API's name, such as ``"artifactregistry"``.
        :param location: of the API, for services that have one in each.
        """
        universe = getattr(self._credentials, "universe_domain", None) or _UNIVERSE
        return self.override(service) or f"https://{f'{location}-' if location else ''}{service}.{universe}"

    def token(self) -> str:
        """Return an access token that is good for five more minutes, unless Google gives only older ones.

        :raises TransientServiceError: if Google gives none for now.
        :raises RefusedCallError: of kind PERMISSION, if Google does not take the credentials.
        """
        return self.credential()[0]

    def credential(self) -> tuple[str, datetime | None]:
        """Return an access token, see :meth:`token`, and when it ends (UTC)."""
        with self._lock:
            if self._ends_within(_MARGIN):
                self._renew()
            return str(self._credentials.token), self._expiry()

    def forget(self, token: str) -> None:
        """Do not use a token any more: something that Google guards did not take it."""
        with self._lock:
            if self._credentials.token == token:
                self._credentials.token = None

    def call(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        clock: ServiceClock | None = None,
    ) -> Any:
        """Make one call of a REST API, and return its answer: the JSON document.

        :param url: absolute; see :meth:`endpoint`.
        :param params: of the query.
        :param json: body of the request.
        :param clock: is set by the answer.
        :raises UnclearCallError: for what may pass by itself, when Google may have done what it was asked to: 5xx,
            connections that break, timeouts.
        :raises TransientServiceError: for all else that may pass by itself: throttling, connections that are not made.
        :raises RefusedCallError: for all else, with Google's status and the kind of end.
        """
        from airflow_stepops.clouds.gcp.failures import read_answer

        send = partial(self._send, method, url, params=params, json=json)
        token = self.token()
        response = send(token)
        if response.status_code == 401:
            self.forget(token)
            response = send(self.token())
        if not response.is_success:
            failure = read_answer(response)
            if failure.expired:
                # The connection is read anew for the next try.
                _accounts.clear()
            raise failure.error()
        if clock is not None:
            clock.read(response.headers.get("date"))
        return _read_json(response)

    def _send(self, method: str, url: str, token: str, **request: Any) -> httpx.Response:
        from airflow_stepops.clouds.gcp.failures import read_no_answer

        headers = {"Authorization": f"Bearer {token}"}
        quota_project = getattr(self._credentials, "quota_project_id", None)
        if quota_project:
            headers["X-Goog-User-Project"] = quota_project
        try:
            return self._client.request(method, url, headers=headers, **request)
        except httpx.TransportError as error:
            raise read_no_answer(method, httpx.URL(url), error).error() from error

    def _renew(self) -> None:
        from google.auth.exceptions import GoogleAuthError

        from airflow_stepops.clouds.gcp.failures import read_no_credentials
        from airflow_stepops.clouds.gcp.token_request import TokenRequest

        try:
            self._credentials.refresh(TokenRequest(self._client))  # type: ignore[no-untyped-call]
        except GoogleAuthError as error:
            # What gives tokens may be away for a moment: that costs nobody a token that still works.
            if self._credentials.token is None or self._ends_within(timedelta(0)):
                failure = read_no_credentials(error)
                if failure.expired:
                    _accounts.clear()
                raise failure.error() from error

    def _ends_within(self, margin: timedelta) -> bool:
        expiry = self._expiry()
        return self._credentials.token is None or (expiry is not None and expiry - datetime.now(UTC) <= margin)

    def _expiry(self) -> datetime | None:
        expiry: datetime | None = self._credentials.expiry
        return None if expiry is None else expiry.replace(tzinfo=UTC)


#: By process, since connections that are open do not outlive a fork.
_accounts: dict[tuple[int, str | None, str | None], Account] = {}


def account(connection: str | None = None, project: str | None = None) -> Account:
    """Return what a connection opens; see :class:`Account`.

    :raises StackError: if there is no such connection, it is not valid, or Airflow's Google provider is not installed.
    :raises RefusedCallError: of kind PERMISSION, if there are no credentials.
    """
    # Without a lock: who waits for one could be the event loop that reading a connection needs.
    key = (os.getpid(), connection, project)
    found = _accounts.get(key)
    if found is None or not found.is_recent:
        try:
            found = _accounts[key] = Account(connection, project)
        except StackError:
            raise
        except Exception:
            # An Airflow that is away for a moment costs nobody an account that still works.
            if found is None:
                raise
    return found


def _extra(connection: str | None) -> dict[str, Any]:
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
    from airflow.sdk import BaseHook

    try:
        found: dict[str, Any] = BaseHook.get_connection(connection or _DEFAULT_CONNECTION).extra_dejson
    except AirflowNotFoundException as error:
        if connection is None:
            return {}
        raise StackError(
            f"there is no Airflow connection {connection!r}: add it, of type google_cloud_platform, or leave "
            f"'connection' out to use {_DEFAULT_CONNECTION!r} or the application default credentials."
        ) from error
    return found


def _credentials(connection: str, extra: Mapping[str, Any]) -> tuple[Credentials, str]:
    """Return what GoogleBaseHook would: credentials, and the project they name or ``""``."""
    try:
        from google.auth.exceptions import GoogleAuthError, MalformedError
    except ImportError as error:
        raise _is_missing(error) from error
    from airflow.exceptions import AirflowException  # type: ignore[attr-defined]

    from airflow_stepops.clouds.gcp.credentials import google_credentials
    from airflow_stepops.clouds.gcp.failures import read_no_credentials

    chain = _field(extra, "impersonation_chain")
    links = [link.strip() for link in chain.split(",")] if isinstance(chain, str) else list(chain or [])
    given = {name: value for name in (*_KEYS, *_OF_IDENTITY_PROVIDER) if (value := _field(extra, name))}
    try:
        credentials, project = google_credentials(given, _keyfile(extra), links, _SCOPES)
        quota_project = _field(extra, "quota_project_id")
        if quota_project:
            credentials = credentials.with_quota_project(quota_project)  # type: ignore[attr-defined]
        return credentials, project
    except ImportError as error:
        raise _is_missing(error) from error
    except (AirflowException, MalformedError, ValueError, KeyError, AttributeError, OSError) as error:
        raise StackError(f"the Airflow connection {connection!r} is not valid: {error}.") from error
    except GoogleAuthError as error:
        raise read_no_credentials(error).error() from error


def _is_missing(error: ImportError) -> StackError:
    return StackError(f"this needs Airflow's Google provider ({error}): pip install 'airflow-stepops[google]'.")


def _keyfile(extra: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the key, which is JSON in JSON when people type it into Airflow's form."""
    value = _field(extra, "keyfile_dict")
    found = json.loads(value) if isinstance(value, str) else value
    if found is not None and not isinstance(found, dict):
        raise ValueError("keyfile_dict is no JSON object")
    return dict(found) if found else None


def _overrides(connection: str, extra: Mapping[str, Any]) -> dict[str, str]:
    value = extra.get("api_endpoint_overrides") or {}
    if not isinstance(value, dict) or not all(str(url).startswith(("https://", "http://")) for url in value.values()):
        raise StackError(
            f"the Airflow connection {connection!r} is not valid: 'api_endpoint_overrides' in its extra holds the "
            'URLs of services, such as {"aiplatform": "https://aiplatform-team.p.googleapis.com"}.'
        )
    return value


def _field(extra: Mapping[str, Any], name: str) -> Any:
    """Return a field of a connection's extra, which older ones have under a longer name; ``None`` for none."""
    return extra.get(name) or extra.get(f"{_OLD_PREFIX}{name}") or None


def _user_agent() -> str:
    from airflow_stepops import __version__

    return f"airflow-stepops/{__version__}"


def _read_json(response: httpx.Response) -> Any:
    from airflow_stepops.clouds.gcp.failures import Failure

    try:
        return response.json() if response.content else {}
    except ValueError as error:
        request = response.request
        what = f"Google {request.method} {request.url.host}{request.url.path}"
        message = f"{what}: something on the way answers in the place of Google"
        raise Failure(message, unclear=True).error() from error
