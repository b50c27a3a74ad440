"""A container of Blob Storage as obstore opens it, with credentials of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_stepops.artifacts.blob_storage import STORAGE
from airflow_stepops.artifacts.bucket import client_options
from airflow_stepops.clouds.azure.connection import Account, account
from airflow_stepops.errors import ArtifactError, JobRefusedError, StackError, TransientServiceError

if TYPE_CHECKING:
    from obstore.store import AzureBearerToken, AzureConfig, AzureStore

_SCOPE = f"{STORAGE}/.default"


@dataclass(frozen=True)
class BlobContainer:
    """A container, and how to get there.

    :param account_name: of the storage account.
    :param connection: id of an Airflow connection of type ``azure``, or ``None`` for the default one.
    :param endpoint: URL of the account's Blob service.
    """

    account_name: str
    name: str
    connection: str | None
    endpoint: str

    def store(self, prefix: str) -> AzureStore:
        """Open a folder of the container.

        A key or a shared access signature of the connection goes before its identity.

        :raises StackError: if there is no such connection, or it is of another cloud.
        """
        from obstore.store import AzureStore

        opened = account(self.connection)
        self._check(opened)
        config: AzureConfig = {"account_name": self.account_name, "endpoint": self.endpoint}
        if opened.account_key:
            config["account_key"] = opened.account_key
        elif opened.sas_token:
            config["sas_key"] = opened.sas_token.lstrip("?")
        return AzureStore(
            self.name,
            prefix=prefix or None,
            config=config,
            client_options=client_options(self.endpoint),
            credential_provider=None if opened.account_key or opened.sas_token else self._credential,
        )

    def _check(self, opened: Account) -> None:
        usual = f".blob.{opened.cloud.storage_suffix}"
        if self.endpoint.endswith(".blob.core.windows.net") and not self.endpoint.endswith(usual):
            raise StackError(
                f"the Airflow connection {opened.connection!r} is of {opened.cloud.name}: give the artifact store "
                f"'endpoint: https://{self.account_name}{usual}'."
            )

    def _credential(self) -> AzureBearerToken:
        try:
            token, ends = account(self.connection).token_and_end(_SCOPE)
        except (TransientServiceError, JobRefusedError) as error:
            raise ArtifactError(f"container {self.name!r} of {self.account_name}: {error}") from error
        return {"token": token, "expires_at": ends}
