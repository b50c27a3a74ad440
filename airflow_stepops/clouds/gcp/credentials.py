"""Credentials for the fields of a connection, as Airflow's Google provider reads them.

The provider's own function is asked where they come from an unusual place. It loads a client of Secret Manager with all
of gRPC and protobuf (0.5 s), which a triggerer does not need for a key or for the credentials of its machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

_PROJECT = re.compile(r"@([\w-]+)\.iam\.gserviceaccount\.com$")


def google_credentials(
    fields: Mapping[str, Any], keyfile: dict[str, Any] | None, chain: Sequence[str], scopes: Sequence[str]
) -> tuple[Credentials, str]:
    """Return credentials, and the project they name or ``""``.

    :param fields: of the connection that say where credentials come from, but for the key itself.
    :param keyfile: key of a service account; with no fields and no key: the application default credentials.
    :param chain: emails of service accounts to impersonate, each through the one before.
    :raises AirflowException: for fields that do not go together.
    :raises ValueError: for a key that is none.
    :raises GoogleAuthError: if there are no credentials.
    """
    if fields:
        from airflow.providers.google.cloud.utils.credentials_provider import get_credentials_and_project_id

        credentials, project = get_credentials_and_project_id(
            **fields,
            keyfile_dict=keyfile,
            scopes=scopes,
            target_principal=chain[-1] if chain else None,
            delegates=chain[:-1] or None,
        )
        return credentials, project or ""
    credentials, project = _of_key(keyfile, scopes) if keyfile else _of_environment(scopes)
    if chain:
        from google.auth import impersonated_credentials

        credentials = impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
            source_credentials=credentials,
            target_principal=chain[-1],
            delegates=list(chain[:-1]) or None,
            target_scopes=scopes,
        )
        named = _PROJECT.search(chain[-1])
        project = named[1] if named else ""
    return credentials, project


def _of_key(keyfile: dict[str, Any], scopes: Sequence[str]) -> tuple[Credentials, str]:
    from google.oauth2.service_account import Credentials as ServiceAccount

    # People paste keys into forms that leave line ends as they are written in JSON.
    key = {**keyfile, "private_key": keyfile["private_key"].replace("\\n", "\n")}
    credentials = ServiceAccount.from_service_account_info(key, scopes=scopes)  # type: ignore[no-untyped-call]
    return credentials, credentials.project_id or ""


def _of_environment(scopes: Sequence[str]) -> tuple[Credentials, str]:
    import google.auth

    credentials, project = google.auth.default(scopes=scopes)
    return credentials, project or ""
