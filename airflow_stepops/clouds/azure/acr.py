"""A registry of Azure: the protocol of all registries, and logins that are exchanged for tokens of Entra ID.

::

    token of Entra ID ──► POST /oauth2/exchange ──► refresh token (hours) ──► GET /oauth2/token ──► token (minutes)

The refresh token is a password for everything that speaks the protocol of registries.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from urllib.parse import urlencode

from airflow_stepops.clouds.azure.connection import Account, account
from airflow_stepops.clouds.azure.container_registry import ACR_HOST
from airflow_stepops.errors import EndKind, JobRefusedError, RegistryAuthError, RegistryError, TransientServiceError
from airflow_stepops.images.registry.auth import Credentials, RenewableCredentials
from airflow_stepops.images.registry.client import RegistryClient
from airflow_stepops.images.registry.session import RegistrySession

_USER = "00000000-0000-0000-0000-000000000000"
#: Of tokens for registries alone, which those want that take none for Resource Manager.
_OF_REGISTRIES = "https://containerregistry.azure.net/.default"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
#: A login is not given to new work so shortly before its end.
_MARGIN_SECONDS = 15 * 60.0
_USUAL_SECONDS = 3600.0


class AcrLogin(RenewableCredentials):
    """The login of a connection at one registry.

    Name and password of the connection where it holds those and no tenant: of a registry's token, or its admin user.
    Else what the registry gives for a token of Entra ID.

    :param connection: id of an Airflow connection of type ``azure``, or ``None`` for the default one.
    :param registry: its host.
    """

    def __init__(self, connection: str | None, registry: str) -> None:
        self._connection = connection
        self._registry = registry
        self._password = ""
        self._good_until = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> tuple[str, str]:
        """Return name and password: the same ones until shortly before they expire.

        :raises RegistryError: or RegistryAuthError, if there are none.
        """
        with _registry_errors(), self._lock:
            opened = account(self._connection)
            if opened.login is not None and not opened.tenant:
                return opened.login
            if self._good_until <= time.time():
                self._fetch(opened)
            return _USER, self._password

    def renew(self) -> None:
        """Ask for another next time."""
        self._good_until = 0.0

    def _fetch(self, opened: Account) -> None:
        from airflow.sdk.log import mask_secret

        for scope in (opened.cloud.scope, _OF_REGISTRIES):
            found = self._exchange(opened.token(scope), opened.tenant)
            if found:
                mask_secret(found)
                self._password, self._good_until = found, _end_of(found) - _MARGIN_SECONDS
                return
        raise RegistryAuthError(
            f"{self._registry} does not take the identity of the Airflow connection {opened.connection!r}: give it the "
            "role AcrPush at the registry (or Container Registry Repository Writer, where roles are by repository)."
        )

    def _exchange(self, token: str, tenant: str) -> str:
        """Return the registry's password for a token, ``""`` if it does not take that."""
        form = {"grant_type": "access_token", "service": self._registry, "access_token": token}
        form |= {"tenant": tenant} if tenant else {}
        session = RegistrySession(self._registry, "", None, insecure=False)
        response = session.send(
            "POST", "/oauth2/exchange", expect=(200, 401, 403), headers=_FORM, content=urlencode(form).encode()
        )
        if response.status_code != 200:
            return ""
        try:
            found = response.json()["refresh_token"]
        except (ValueError, KeyError, TypeError) as error:
            said = f"{self._registry}: POST /oauth2/exchange gave no login: is it a registry of Azure?"
            raise RegistryError(said) from error
        return str(found)


@cache
def login_of(connection: str | None, registry: str) -> AcrLogin:
    """Return the login of a connection at a registry, the same one for all that is opened in this process."""
    return AcrLogin(connection, registry)


class AcrRepository(RegistryClient):
    """One repository of a registry, which makes it with the first push.

    :param name: ``host/path``.
    :param connection: id of an Airflow connection of type ``azure``, or ``None`` for the default one.
    """

    def __init__(self, name: str, connection: str | None) -> None:
        super().__init__(name, credentials=login_of(connection, name.partition("/")[0]))
        self._connection = connection

    def login_for(self, registry: str) -> Credentials | None:
        """Return a login of the same connection for whatever registry of Azure."""
        if ACR_HOST.fullmatch(registry):
            return login_of(self._connection, registry)
        return super().login_for(registry)


def _end_of(password: str) -> float:
    """Return the Unix time at which a refresh token ends, which it says itself."""
    try:
        text = password.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))["exp"])
    except (ValueError, KeyError, IndexError, TypeError):
        return time.time() + _USUAL_SECONDS


@contextmanager
def _registry_errors() -> Iterator[None]:
    """Turn errors of Entra ID in the block into those of registries."""
    try:
        yield
    except TransientServiceError as error:
        raise RegistryError(f"{error}. Try again later.") from error
    except JobRefusedError as error:
        kind = RegistryAuthError if error.kind is EndKind.PERMISSION else RegistryError
        raise kind(str(error)) from error
