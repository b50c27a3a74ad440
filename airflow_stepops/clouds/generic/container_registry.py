"""Container registry ``generic``: any registry that speaks the OCI distribution API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from airflow_stepops.errors import StackError
from airflow_stepops.stacks.components import ContainerRegistryComponent

if TYPE_CHECKING:
    from airflow_stepops.images.registry.repository import ImageRepository

_URI = re.compile(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")


class GenericContainerRegistry(ContainerRegistryComponent):
    """A registry by address."""

    flavor: ClassVar[str] = "generic"

    uri: str = Field(description="host, port and a prefix of names: registry.example.com:5000/team")
    repository: str = Field("stepops", description="name of the repository below the prefix")
    connection: str | None = Field(
        None, description="id of an Airflow connection with login and password; default: anonymous"
    )
    insecure: bool = Field(False, description="speak plain HTTP; always so for this machine itself")

    @field_validator("uri", "repository")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not _URI.fullmatch(value):
            raise ValueError(
                "give a host and lower-case names, such as 'registry.example.com:5000/team', without https://"
            )
        return value

    def open(self) -> ImageRepository:
        """Open the repository with the credentials of the connection."""
        from airflow_stepops.images.registry.client import RegistryClient

        return RegistryClient(f"{self.uri}/{self.repository}", credentials=self._credentials, insecure=self.insecure)

    def _credentials(self) -> tuple[str, str] | None:
        if self.connection is None:
            return None
        from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
        from airflow.sdk import BaseHook

        where = f"container registry {self.name!r}"
        try:
            connection = BaseHook.get_connection(self.connection)
        except AirflowNotFoundException as error:
            raise StackError(
                f"{where}: there is no Airflow connection {self.connection!r}: add it, with login and password."
            ) from error
        if not connection.login or not connection.password:
            raise StackError(f"{where}: Airflow connection {self.connection!r} has no login or no password: add them.")
        return connection.login, connection.password
