"""Azure's clouds: the public one, those of governments, and others that a connection describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from airflow_stepops.errors import StackError, did_you_mean


@dataclass(frozen=True)
class Cloud:
    """Where the services of one cloud are. URLs have no slash at their end.

    :param name: as ``az cloud list`` has it.
    :param resource_manager: URL of Azure Resource Manager.
    :param active_directory: URL of Microsoft Entra ID, which gives tokens.
    :param machine_learning: URL that tokens for Azure ML itself are for; the studio is there, too.
    :param portal: URL of the portal.
    :param storage_suffix: of the hosts of storage accounts, behind ``blob.``.
    :param registry_suffix: of the hosts of container registries.
    :param is_known: whether Entra ID of the public cloud knows it.
    """

    name: str
    resource_manager: str
    active_directory: str
    machine_learning: str
    portal: str
    storage_suffix: str
    registry_suffix: str
    is_known: bool = True

    @property
    def scope(self) -> str:
        """Of tokens for Azure Resource Manager."""
        return f"{self.resource_manager}/.default"


#: By the name that Airflow's connections have for them.
CLOUDS = {
    "AzurePublicCloud": Cloud(
        "AzureCloud",
        "https://management.azure.com",
        "https://login.microsoftonline.com",
        "https://ml.azure.com",
        "https://portal.azure.com",
        "core.windows.net",
        "azurecr.io",
    ),
    "AzureUSGovernment": Cloud(
        "AzureUSGovernment",
        "https://management.usgovcloudapi.net",
        "https://login.microsoftonline.us",
        "https://ml.azure.us",
        "https://portal.azure.us",
        "core.usgovcloudapi.net",
        "azurecr.us",
    ),
    "AzureChinaCloud": Cloud(
        "AzureChinaCloud",
        "https://management.chinacloudapi.cn",
        "https://login.chinacloudapi.cn",
        "https://ml.azure.cn",
        "https://portal.azure.cn",
        "core.chinacloudapi.cn",
        "azurecr.cn",
    ),
}
_DEFAULT = "AzurePublicCloud"
#: What a connection may say of a cloud of one's own.
_PLACES = tuple(field.name for field in fields(Cloud) if field.name not in ("name", "is_known"))


def cloud_of(connection: str, extra: Mapping[str, Any]) -> Cloud:
    """Return the cloud that the extra of a connection names.

    :param extra: with ``cloud_environment``, and ``cloud_endpoints`` for what is elsewhere than it usually is.
    :raises StackError: if there is no such cloud.
    """
    name = extra.get("cloud_environment") or _DEFAULT
    if name not in CLOUDS:
        raise StackError(
            f"the Airflow connection {connection!r} is not valid: cloud_environment {name!r} in its extra is not one "
            f"of {', '.join(CLOUDS)}.{did_you_mean(str(name), CLOUDS)}"
        )
    places = extra.get("cloud_endpoints") or {}
    if not isinstance(places, dict) or not all(_is_place(key, value) for key, value in places.items()):
        raise StackError(
            f"the Airflow connection {connection!r} is not valid: 'cloud_endpoints' in its extra holds places of a "
            f'cloud of your own, such as {{"resource_manager": "https://management.example.com"}}; allowed: '
            f"{', '.join(_PLACES)}."
        )
    found = {key: value.rstrip("/") for key, value in places.items()}
    return replace(CLOUDS[name], **found, is_known="active_directory" not in found)


def _is_place(key: object, value: object) -> bool:
    is_url = isinstance(value, str) and value.startswith(("https://", "http://"))
    return key in _PLACES and isinstance(value, str) and bool(value) and is_url != str(key).endswith("_suffix")
