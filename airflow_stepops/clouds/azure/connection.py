"""Calls to Azure with the credentials of an Airflow connection of type ``azure``.

What a connection opens is kept for a quarter of an hour in each process: after that a changed connection is noticed.
Airflow's own hook loads clients of Resource Manager of three generations, which a triggerer does not need; so the
fields of a connection are read here, with the meaning that they have there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from airflow_stepops.clouds.azure.clouds import Cloud, cloud_of
from airflow_stepops.errors import StackError

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from azure.core.credentials import TokenCredential

    from airflow_stepops.jobs.clock import ServiceClock

DEFAULT_CONNECTION = "azure_default"
#: For connecting, and for each wait of a call.
ANSWER_SECONDS = 30.0
_KEPT_SECONDS = 15 * 60.0
#: A token is not used so shortly before its end.
_MARGIN_SECONDS = 5 * 60.0
_OLD_PREFIXES = ("extra__azure__", "extra__wasb__")


class Account:
    """What one connection opens. Safe to use from several threads.

    :param connection: id of an Airflow connection of type ``azure``; ``None`` for ``azure_default`` where there is one,
        and else what azure-identity finds by itself: variables, workload identity, identity of the machine, az's login.
    :raises StackError: if there is no such connection, it is not valid, or Airflow's Azure provider is not installed.
    """

    def __init__(self, connection: str | None) -> None:
        self.connection = connection or DEFAULT_CONNECTION
        found = _read(connection)
        self._fields = _fields(self.connection, found)
        self.cloud: Cloud = cloud_of(self.connection, self._fields)
        self.credential: TokenCredential = self._new_credential()
        self._tokens: dict[str, tuple[str, float]] = {}
        self._client = httpx.Client(headers={"User-Agent": _user_agent()}, timeout=ANSWER_SECONDS)
        self._lock = threading.Lock()
        self._made_at = time.monotonic()

    @property
    def is_recent(self) -> bool:
        """Whether the connection was read a short time ago."""
        return time.monotonic() - self._made_at < _KEPT_SECONDS

    @property
    def subscription(self) -> str:
        """Id of the subscription.

        :raises StackError: if the connection names none.
        """
        found = self._fields.get("subscriptionId")
        if not found:
            raise StackError(
                f"no Azure subscription is named: give 'subscription_id' in the stack, or subscriptionId in the extra "
                f"of the Airflow connection {self.connection!r}."
            )
        return str(found)

    @property
    def tenant(self) -> str:
        """Id of the tenant, ``""`` if the connection names none."""
        return str(self._fields.get("tenantId") or "")

    @property
    def account_key(self) -> str | None:
        """Key of a storage account, if the connection holds one."""
        return self._fields.get("account_key")

    @property
    def sas_token(self) -> str | None:
        """Shared access signature for Blob Storage, if the connection holds one."""
        return self._fields.get("sas_token")

    @property
    def login(self) -> tuple[str, str] | None:
        """Name and password as the connection has them, ``None`` if it does not hold both."""
        name, password = self._fields.get("login"), self._fields.get("password")
        return (name, password) if name and password else None

    def token(self, scope: str) -> str:
        """Return an access token that is good for five more minutes, unless Azure gives only older ones.

        :param scope: what it is for, such as ``https://management.azure.com/.default``; see :attr:`Cloud.scope`.
        :raises TransientServiceError: if Azure gives none for now.
        :raises RefusedCallError: of kind PERMISSION, if Azure does not take the credentials, or there are none.
        """
        return self.token_and_end(scope)[0]

    def token_and_end(self, scope: str) -> tuple[str, datetime]:
        """Return an access token, see :meth:`token`, and when it ends (UTC)."""
        with self._lock:
            text, ends = self._tokens.get(scope, ("", 0.0))
            if ends - time.time() <= _MARGIN_SECONDS:
                text, ends = self._tokens[scope] = self._fetch(scope, text, ends)
            return text, datetime.fromtimestamp(ends, UTC)

    def forget(self, token: str) -> None:
        """Do not use a token any more: something that Azure guards did not take it."""
        with self._lock:
            kept = {scope: found for scope, found in self._tokens.items() if found[0] != token}
            if len(kept) < len(self._tokens):
                # The credential has the token, too.
                self._tokens, self.credential = kept, self._new_credential()

    def call(
        self,
        method: str,
        url: str,
        *,
        scope: str,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        clock: ServiceClock | None = None,
    ) -> Any:
        """Make one call of a REST API, and return its answer: the JSON document, ``{}`` for none.

        :param url: absolute.
        :param scope: of the token, see :meth:`token`.
        :param params: of the query.
        :param json: body of the request.
        :param clock: is set by the answer.
        :raises TransientServiceError: for what may pass by itself: throttling, 5xx, connections, timeouts.
        :raises RefusedCallError: for all else, with Azure's status and code, and the kind of end.
        """
        from airflow_stepops.clouds.azure.failures import read_answer, read_other_answer

        send = partial(self._send, method, url, params=params, json=json, headers=headers or {})
        token = self.token(scope)
        response = send(token)
        if response.status_code == 401:
            self.forget(token)
            response = send(self.token(scope))
        if not response.is_success:
            failure = read_answer(response)
            if failure.expired:
                _forget_accounts()
            raise failure.error()
        if clock is not None:
            clock.read(response.headers.get("date"))
        try:
            return response.json() if response.content else {}
        except ValueError as error:
            raise read_other_answer(response).error() from error

    def _send(self, method: str, url: str, token: str, headers: Mapping[str, str], **request: Any) -> httpx.Response:
        from airflow_stepops.clouds.azure.failures import read_no_answer

        try:
            return self._client.request(method, url, headers={**headers, "Authorization": f"Bearer {token}"}, **request)
        except httpx.TransportError as error:
            raise read_no_answer(method, httpx.URL(url), error).error() from error

    def _fetch(self, scope: str, text: str, ends: float) -> tuple[str, float]:
        """Return a new token and its end; the one that is there where Azure gives none and it still works."""
        from azure.core.exceptions import AzureError

        from airflow_stepops.clouds.azure.failures import read_no_credentials

        try:
            found = self.credential.get_token(scope)
        except AzureError as error:
            # MSAL gives the same answer again for a minute, without asking.
            self.credential = self._new_credential()
            if ends > time.time():
                return text, ends
            failure = read_no_credentials(error, worked=bool(text))
            if failure.expired:
                _forget_accounts()
            raise failure.error() from error
        return found.token, float(found.expires_on)

    def _new_credential(self) -> TokenCredential:
        from airflow_stepops.clouds.azure.credentials import azure_credential

        try:
            return azure_credential(self._fields, self.cloud)
        except ImportError as error:
            raise StackError(
                f"this needs Airflow's Azure provider ({error}): pip install 'airflow-stepops[azure]'."
            ) from error
        except ValueError as error:
            raise StackError(f"the Airflow connection {self.connection!r} is not valid: {error}") from error


#: By process, since connections that are open do not outlive a fork.
_accounts: dict[tuple[int, str | None], Account] = {}


def account(connection: str | None = None) -> Account:
    """Return what a connection opens; see :class:`Account`.

    :raises StackError: if there is no such connection, it is not valid, or Airflow's Azure provider is not installed.
    """
    # Without a lock: who waits for one could be the event loop that reading a connection needs.
    key = (os.getpid(), connection)
    found = _accounts.get(key)
    if found is None or not found.is_recent:
        try:
            found = _accounts[key] = Account(connection)
        except StackError:
            raise
        except Exception:
            # An Airflow that is away for a moment costs nobody an account that still works.
            if found is None:
                raise
    return found


def _forget_accounts() -> None:
    """Read connections anew for the next try."""
    _accounts.clear()


def _read(connection: str | None) -> Connection | None:
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
    from airflow.sdk import BaseHook

    try:
        return BaseHook.get_connection(connection or DEFAULT_CONNECTION)
    except AirflowNotFoundException as error:
        if connection is None:
            return None
        raise StackError(
            f"there is no Airflow connection {connection!r}: add it, of type azure, or leave 'connection' out to use "
            f"{DEFAULT_CONNECTION!r} or the identity of the machine."
        ) from error


def _fields(name: str, connection: Connection | None) -> dict[str, Any]:
    """Return what a connection says, by the names that new ones of type ``azure`` have for it."""
    if connection is None:
        return {}
    from airflow_stepops.clouds.azure.credentials import key_fields

    extra = dict(connection.extra_dejson)
    for prefix in _OLD_PREFIXES:
        old = {key.removeprefix(prefix): value for key, value in extra.items() if key.startswith(prefix)}
        extra |= {key: value for key, value in old.items() if not extra.get(key)}
    extra["tenantId"] = extra.get("tenantId") or extra.get("tenant_id")
    found: dict[str, Any] = {"login": connection.login, "password": connection.password, **extra}
    try:
        found |= key_fields(found)
    except (ValueError, KeyError, OSError) as error:
        raise StackError(f"the Airflow connection {name!r} is not valid: {error}.") from error
    return {key: value for key, value in found.items() if value not in (None, "")}


def _user_agent() -> str:
    from airflow_stepops import __version__

    return f"airflow-stepops/{__version__}"
