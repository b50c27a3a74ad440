"""Artifact store ``azure-blob``: a container of Azure Blob Storage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from airflow_stepops.stacks.components import ArtifactStoreComponent

if TYPE_CHECKING:
    from airflow_stepops.artifacts.store import ArtifactStore
    from airflow_stepops.clouds.azure.container import BlobContainer

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(/[a-z0-9]{3,24})?/?")
_OF_A_CLOUD = re.compile(r"https://[a-z0-9]+\.blob\.(?P<suffix>core\.[a-z0-9.-]+)/?")
_SUFFIX = "core.windows.net"


class AzureBlobArtifactStore(ArtifactStoreComponent):
    """Values in a container."""

    flavor: ClassVar[str] = "azure-blob"
    cloud: ClassVar[str] = "azure"

    account_name: str = Field(description="name of the storage account")
    container: str = Field(description="name of the container, which has to exist")
    prefix: str = Field("", description="folder in the container; default: the container's top")
    connection: str | None = Field(
        None, description="id of an Airflow connection of type azure; default: azure_default"
    )
    endpoint: str | None = Field(
        None,
        description="URL of the account's Blob service, for governments' clouds and emulators; default: "
        "https://<account_name>.blob.core.windows.net",
    )
    resource_group: str | None = Field(None, description="resource group of the account, for links into the portal")

    @field_validator("account_name")
    @classmethod
    def _is_an_account(cls, value: str) -> str:
        if not _ACCOUNT.fullmatch(value):
            raise ValueError("give the account's name alone: 3 to 24 lower-case letters and digits")
        return value

    @field_validator("container")
    @classmethod
    def _is_a_container(cls, value: str) -> str:
        if not _CONTAINER.fullmatch(value):
            raise ValueError(
                "give the name alone: 3 to 63 lower-case letters, digits and single hyphens between them; folders go "
                "into 'prefix'"
            )
        return value

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        if value and (not _PREFIX.fullmatch(value) or any(part.endswith(".") for part in value.split("/"))):
            raise ValueError("give a folder such as 'team/artifacts', of letters, digits and !_.*'()-")
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not _ENDPOINT.fullmatch(value):
            raise ValueError(
                "give a scheme and a host, such as 'https://team.blob.core.usgovcloudapi.net', and for an emulator the "
                "account: 'http://127.0.0.1:10000/devstoreaccount1'"
            )
        return value

    def root(self) -> str:
        """Return ``abfss://container@account.dfs.core.windows.net`` with the prefix."""
        return f"abfss://{self.container}@{self.account_name}.dfs.{self._suffix()}/{self.prefix}".rstrip("/")

    def open(self) -> ArtifactStore:
        """Open the container with the credentials of the connection, which are renewed while it is open.

        :raises StackError: if there is no such connection.
        """
        from airflow_stepops.artifacts.store import ArtifactStore

        return ArtifactStore(self.root(), self._container().store(self.prefix))

    def job_environment(self) -> Mapping[str, str]:
        """Return the endpoint where one is given. The job's credentials are those of its identity."""
        from airflow_stepops.artifacts.blob_storage import ENDPOINT_VARIABLE

        return {ENDPOINT_VARIABLE: self.endpoint.rstrip("/")} if self.endpoint else {}

    def console_url(self, uri: str) -> str:  # noqa: ARG002 - the portal has no links to folders
        """Return the container's page in the portal; ``""`` where its resource group is not known."""
        from airflow_stepops.clouds.azure.portal import container_page

        if self.resource_group is None:
            return ""
        return container_page(self.connection, self.resource_group, self.account_name, self.container)

    def _suffix(self) -> str:
        found = _OF_A_CLOUD.fullmatch(self.endpoint or "")
        return found["suffix"] if found else _SUFFIX

    def _container(self) -> BlobContainer:
        from airflow_stepops.clouds.azure.container import BlobContainer

        endpoint = (self.endpoint or f"https://{self.account_name}.blob.{_SUFFIX}").rstrip("/")
        return BlobContainer(self.account_name, self.container, self.connection, endpoint)
