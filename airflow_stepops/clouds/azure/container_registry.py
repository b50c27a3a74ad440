"""Container registry ``acr``: Azure Container Registry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator, model_validator

from airflow_stepops.stacks.components import ContainerRegistryComponent

if TYPE_CHECKING:
    from airflow_stepops.images.registry.repository import ImageRepository

#: Login servers; a registry made with a label for its domain has that behind its name.
ACR_HOST = re.compile(r"(?P<name>[a-z0-9]{5,50})(?:-[a-z0-9]+)?\.azurecr\.(?:io|us|cn)")
_EMULATED = re.compile(r"[a-z0-9.-]+:\d+")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
#: What Docker's references may have.
_LONGEST_REFERENCE = 255
_DIGEST = len("@sha256:") + 64


class AcrContainerRegistry(ContainerRegistryComponent):
    """A registry of ACR."""

    flavor: ClassVar[str] = "acr"
    cloud: ClassVar[str] = "azure"

    uri: str = Field(description="login server and a prefix of names: myregistry.azurecr.io/team")
    repository: str = Field("stepops", description="name of the repository below the prefix")
    connection: str | None = Field(
        None, description="id of an Airflow connection of type azure; default: azure_default"
    )
    resource_group: str | None = Field(None, description="resource group of the registry, for links into the portal")

    @field_validator("uri")
    @classmethod
    def _is_a_registry(cls, value: str) -> str:
        host, slash, prefix = value.partition("/")
        if not (ACR_HOST.fullmatch(host) or _EMULATED.fullmatch(host)) or (slash and not _NAME.fullmatch(prefix)):
            raise ValueError(
                "give the login server and lower-case names, without https://, such as 'myregistry.azurecr.io/team'; "
                "other registries have the flavor 'generic'"
            )
        return value

    @field_validator("repository")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("give a lower-case name, such as 'stepops'")
        return value

    @model_validator(mode="after")
    def _fits_in_a_reference(self) -> AcrContainerRegistry:
        if len(f"{self.uri}/{self.repository}") + _DIGEST > _LONGEST_REFERENCE:
            raise ValueError(
                f"references of images would be too long: give a 'uri' and a 'repository' of "
                f"{_LONGEST_REFERENCE - _DIGEST - 1} characters together"
            )
        return self

    def open(self) -> ImageRepository:
        """Open the repository with a login of the connection, which is renewed while it is open."""
        from airflow_stepops.clouds.azure.acr import AcrRepository

        return AcrRepository(f"{self.uri}/{self.repository}", self.connection)

    def console_url(self, reference: str) -> str:
        """Return the registry's page in the portal; ``""`` where its resource group is not known."""
        from airflow_stepops.clouds.azure.portal import registry_page

        found = ACR_HOST.fullmatch(reference.partition("/")[0])
        if self.resource_group is None or found is None:
            return ""
        return registry_page(self.connection, self.resource_group, found["name"])
