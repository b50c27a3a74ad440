"""Links into the Azure portal, for people."""

from __future__ import annotations

from urllib.parse import quote

from airflow_stepops.clouds.azure.connection import account


def container_page(connection: str | None, resource_group: str, storage_account: str, container: str) -> str:
    """Return the page of a container of Blob Storage.

    :raises StackError: if the connection names no subscription.
    """
    place = _id(connection, resource_group, f"Microsoft.Storage/storageAccounts/{storage_account}")
    blade = "#view/Microsoft_Azure_Storage/ContainerMenuBlade/~/overview/storageAccountId"
    return f"{account(connection).cloud.portal}/{blade}/{quote(place, safe='')}/path/{container}"


def registry_page(connection: str | None, resource_group: str, registry: str) -> str:
    """Return the page with the repositories of a container registry.

    :raises StackError: if the connection names no subscription.
    """
    place = _id(connection, resource_group, f"Microsoft.ContainerRegistry/registries/{registry}")
    return f"{account(connection).cloud.portal}/#resource{place}/repository"


def _id(connection: str | None, resource_group: str, resource: str) -> str:
    return f"/subscriptions/{account(connection).subscription}/resourceGroups/{resource_group}/providers/{resource}"
