"""Credentials of azure-identity for the fields of a connection, as Airflow's Azure provider reads them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from airflow_stepops.clouds.azure.clouds import Cloud

#: Of a key as ``az ad sp create-for-rbac --sdk-auth`` prints it → of a connection.
_OF_A_KEY = {
    "clientId": "login",
    "clientSecret": "password",
    "tenantId": "tenantId",
    "subscriptionId": "subscriptionId",
}
#: Few tries and short waits: who calls tries again, and tells people of it.
PATIENCE = {"retry_total": 2, "retry_backoff_factor": 0.2, "connection_timeout": 5, "read_timeout": 30}


def azure_credential(fields: Mapping[str, Any], cloud: Cloud) -> TokenCredential:
    """Return what gives tokens.

    :param fields: of the connection. With ``login``, ``password`` and ``tenantId`` they are a service principal, and
        else azure-identity looks for an identity, with the ids that the connection gives.
    :raises ImportError: if azure-identity is not installed.
    :raises ValueError: if a field cannot be one of such a connection.
    """
    _quiet()
    place = {"authority": cloud.active_directory, **PATIENCE}
    if not cloud.is_known:
        place["disable_instance_discovery"] = True
    login, password, tenant = fields.get("login"), fields.get("password"), fields.get("tenantId")
    if login and password and tenant:
        from azure.identity import ClientSecretCredential

        return ClientSecretCredential(tenant, login, password, **place)
    from azure.identity import DefaultAzureCredential

    identity: dict[str, Any] = {}
    if fields.get("managed_identity_client_id"):
        identity["managed_identity_client_id"] = fields["managed_identity_client_id"]
    if fields.get("workload_identity_tenant_id"):
        other = fields["workload_identity_tenant_id"]
        identity |= {"workload_identity_tenant_id": other, "additionally_allowed_tenants": [other]}
    return DefaultAzureCredential(**identity, **place)


def _quiet() -> None:
    """Keep each request for a token out of the logs of tasks, unless somebody has set these loggers."""
    for name in ("azure.identity", "azure.core.pipeline.policies.http_logging_policy"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)


def key_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the JSON key of a connection says, which goes before all else: ``{}`` for none.

    :param fields: with ``key_path``, a file, or ``key_json``, the key itself.
    :raises ValueError: if it is no JSON object.
    :raises OSError: if there is no such file.
    """
    path, key = fields.get("key_path"), fields.get("key_json")
    if path:
        key = Path(str(path)).read_text()
    if not key:
        return {}
    try:
        found = json.loads(key) if isinstance(key, str) else key
    except ValueError:
        # What json says of it may quote the key.
        raise ValueError("key_path or key_json is no JSON") from None
    if not isinstance(found, dict) or not {"clientId", "clientSecret", "tenantId"} <= set(found):
        raise ValueError("key_path or key_json is no JSON object with clientId, clientSecret and tenantId")
    return {ours: found[theirs] for theirs, ours in _OF_A_KEY.items() if found.get(theirs)}
