"""A container of Azure Blob Storage as a job opens it: with the identity that Azure ML gives it, or what obstore finds.

obstore knows credentials in variables, workload identity, and the identity of a virtual machine. What Azure ML has for
its jobs is none of these.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from airflow_stepops.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore.store import AzureBearerToken, AzureConfig, AzureStore, HTTPStore, RetryConfig

#: ``abfss://container@account.dfs.core.windows.net/folder``, which names the account.
_ROOT = re.compile(r"abfss?://(?P<container>[^@/]+)@(?P<account>[^./]+)\.dfs\.(?P<suffix>[^/]+)(?:/(?P<folder>.*))?")
#: Where another place than the account's usual one is told.
ENDPOINT_VARIABLE = "AZURE_STORAGE_ENDPOINT"
#: What tokens are for.
STORAGE = "https://storage.azure.com"
_PATIENCE_SECONDS = (0.5, 1, 2, 4)
_TIMEOUT_SECONDS = 30
_VERSION = "2023-11-03"


def is_container(root: str) -> bool:
    """Whether a URI names a container and its account."""
    return _ROOT.fullmatch(root) is not None


def open_container(root: str, patience: RetryConfig) -> AzureStore:
    """Open what :func:`is_container` says is one, the way the environment says.

    :param patience: with a service that is away.
    :raises ArtifactError: when it is used, if the job's identity gives no token.
    """
    from obstore.store import AzureStore

    found = _ROOT.fullmatch(root)
    assert found is not None
    endpoint = _endpoint(found)
    config: AzureConfig = {"account_name": found["account"], "endpoint": endpoint}
    request = _token_request(os.environ)
    return AzureStore(
        found["container"],
        prefix=found["folder"] or None,
        config=config,
        client_options={"allow_http": endpoint.startswith("http://")},
        retry_config=patience,
        credential_provider=None if request is None else _tokens(request),
    )


def open_for_deleting(root: str, patience: RetryConfig) -> HTTPStore | None:
    """Open a container for deleting blobs one by one; ``None`` where this is no job of Azure ML.

    obstore deletes them in batches, and a batch takes the right to write, of which a condition on the paths of blobs
    gives nothing to a request that has none: "Permissions for Blob service operations".

    :raises ArtifactError: if the job's identity gives no token.
    """
    from obstore.store import HTTPStore

    found, request = _ROOT.fullmatch(root), _token_request(os.environ)
    if request is None:
        return None
    assert found is not None
    endpoint = _endpoint(found)
    headers = {"Authorization": f"Bearer {_tokens(request)()['token']}", "x-ms-version": _VERSION}
    return HTTPStore.from_url(
        "/".join(filter(None, (endpoint, found["container"], found["folder"]))),
        client_options={"allow_http": endpoint.startswith("http://"), "default_headers": headers},
        retry_config=patience,
    )


def _endpoint(root: re.Match[str]) -> str:
    return os.environ.get(ENDPOINT_VARIABLE) or f"https://{root['account']}.blob.{root['suffix']}"


def _token_request(variables: Mapping[str, str]) -> Request | None:
    """Return the request for a token as Azure ML has it, ``None`` where this is no job of Azure ML."""
    if variables.get("OBO_ENDPOINT"):  # a job that runs as the person who submitted it
        return Request(f"{variables['OBO_ENDPOINT']}?{urlencode({'resource': STORAGE})}")  # noqa: S310 - of the machine
    if variables.get("MSI_ENDPOINT") and variables.get("MSI_SECRET"):
        query = {"api-version": "2017-09-01", "resource": STORAGE}
        # Without it the answer is the token of whoever submitted the job, or none.
        client = variables.get("AZURE_CLIENT_ID") or variables.get("DEFAULT_IDENTITY_CLIENT_ID")
        query |= {"clientid": client} if client else {}
        url = f"{variables['MSI_ENDPOINT']}?{urlencode(query)}"
        return Request(url, headers={"secret": variables["MSI_SECRET"]})  # noqa: S310
    return None


def _tokens(request: Request) -> Callable[[], AzureBearerToken]:
    def fetch() -> AzureBearerToken:
        try:
            found = json.loads(_send(request))
            return {
                "token": str(found["access_token"]),
                "expires_at": datetime.fromtimestamp(int(found["expires_on"]), UTC),
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError("the identity of this job gave something else than an access token") from error

    return fetch


def _send(request: Request) -> bytes:
    for seconds in (*_PATIENCE_SECONDS, None):
        try:
            with urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
                return bytes(answer.read())
        except OSError as error:
            passing = not isinstance(error, HTTPError) or error.code in (404, 408, 429) or error.code >= 500
            if seconds is None or not passing:
                raise ArtifactError(
                    f"the identity of this job gave no access token ({error}): let the job run as an identity that "
                    "its compute has, and give that one the role that stepops permissions prints."
                ) from error
            time.sleep(seconds)
    raise AssertionError
