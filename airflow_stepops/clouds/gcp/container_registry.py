"""Container registries ``gar`` and ``gcr``: Artifact Registry by its own hosts, and by those of Container Registry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import quote

from pydantic import Field, field_validator

from airflow_stepops.stacks.components import ContainerRegistryComponent

if TYPE_CHECKING:
    from airflow_stepops.images.registry.repository import ImageRepository

_LOCATION = re.compile(r"[a-z]+(-[a-z]+\d+)?")
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_PROJECT_IN_PATH = r"(?P<project>(?:[a-z0-9-]+\.[a-z0-9.-]+/)?[a-z0-9-]+)"
_REPOSITORY = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(rf"{_PART}(?:/{_PART})*")
#: So that host, project, repository and image stay below the 255 characters that Docker's references may have.
_LONGEST_IMAGE = 80
#: Where Artifact Registry keeps what the hosts of Container Registry hold.
LOCATIONS = {"gcr.io": "us", "us.gcr.io": "us", "eu.gcr.io": "europe", "asia.gcr.io": "asia"}
_CONNECTION = "id of an Airflow connection of type google_cloud_platform; default: google_cloud_default"


class _GoogleContainerRegistry(ContainerRegistryComponent):
    """What both have."""

    project: str | None = Field(None, description="id of the project; default: the connection's")
    image: str = Field("steps", description="name of the images, such as steps or team/steps")
    connection: str | None = Field(None, description=_CONNECTION)

    @field_validator("project")
    @classmethod
    def _is_a_project(cls, value: str | None) -> str | None:
        if value is not None and not _PROJECT.fullmatch(value):
            raise ValueError("give the project's id, such as 'my-project-123', not its name or number")
        return value

    @field_validator("image")
    @classmethod
    def _is_an_image(cls, value: str) -> str:
        if not _IMAGE.fullmatch(value) or len(value) > _LONGEST_IMAGE:
            raise ValueError(f"give a lower-case name of at most {_LONGEST_IMAGE} characters, such as 'steps'")
        return value

    def _project(self) -> str:
        """Return the project's id."""
        from airflow_stepops.clouds.gcp.artifact_registry import registry_errors
        from airflow_stepops.clouds.gcp.connection import account

        if self.project:
            return self.project
        with registry_errors():
            return account(self.connection).project

    def _host(self, usual: str) -> str:
        """Return the host of the registry, which the connection may know another of."""
        from airflow_stepops.clouds.gcp.artifact_registry import registry_errors
        from airflow_stepops.clouds.gcp.connection import account

        with registry_errors():
            return (account(self.connection).override("docker") or usual).rpartition("//")[2]


class GarContainerRegistry(_GoogleContainerRegistry):
    """A repository of Artifact Registry."""

    flavor: ClassVar[str] = "gar"

    location: str = Field(description="region or multi-region of the repository, such as europe-west4 or europe")
    repository: str = Field("stepops", description="id of the repository")
    create_repository: bool = Field(True, description="make the repository before the first push when it is missing")

    @field_validator("location")
    @classmethod
    def _is_a_location(cls, value: str) -> str:
        if not _LOCATION.fullmatch(value):
            raise ValueError("give a region or multi-region, such as 'europe-west4' or 'europe'")
        return value

    @field_validator("repository")
    @classmethod
    def _is_a_repository(cls, value: str) -> str:
        if not _REPOSITORY.fullmatch(value):
            raise ValueError(
                "give the repository's id alone: a letter, then at most 62 lower-case letters, digits and hyphens, "
                "not a hyphen at the end; the images' name goes into 'image'"
            )
        return value

    def open(self) -> ImageRepository:
        """Open the repository with a login of the connection, which is renewed while it is open."""
        from airflow_stepops.clouds.gcp.artifact_registry import GoogleLogin, GoogleRepository, NewRepository

        project = self._project()
        return GoogleRepository(
            f"{self._host(f'{self.location}-docker.pkg.dev')}/{_in_path(project)}/{self.repository}/{self.image}",
            credentials=GoogleLogin(self.connection),
            new=NewRepository(project, self.location, self.repository, self.connection, self.create_repository),
        )

    def console_url(self, reference: str) -> str:
        """Return the page of an image in the console."""
        place = rf"{self.location}-docker\.pkg\.dev/{_PROJECT_IN_PATH}/{self.repository}"
        return _console_url(place, self.location, self.repository, reference)


class GcrContainerRegistry(_GoogleContainerRegistry):
    """A host of Container Registry, which Artifact Registry serves."""

    flavor: ClassVar[str] = "gcr"

    host: Literal["gcr.io", "us.gcr.io", "eu.gcr.io", "asia.gcr.io"] = Field(
        "gcr.io", description="host of the registry"
    )

    def open(self) -> ImageRepository:
        """Open the images' place with a login of the connection, which is renewed while it is open."""
        from airflow_stepops.clouds.gcp.artifact_registry import GoogleLogin, GoogleRepository

        name = f"{self._host(self.host)}/{_in_path(self._project())}/{self.image}"
        return GoogleRepository(name, credentials=GoogleLogin(self.connection), new=None)

    def console_url(self, reference: str) -> str:
        """Return the page of an image in the console."""
        return _console_url(rf"{re.escape(self.host)}/{_PROJECT_IN_PATH}", LOCATIONS[self.host], self.host, reference)


def _in_path(project: str) -> str:
    """Return a project as it is in names of images: those of a domain have a colon in their id."""
    return project.replace(":", "/")


def _console_url(place: str, location: str, repository: str, reference: str) -> str:
    """Return the console's page of an image.

    :param place: regular expression: what the reference has before the image's name, with a group for the project.
    """
    found = re.fullmatch(rf"{place}/(?P<image>[^@]+)@(?P<digest>.+)", reference)
    if found is None:
        return ""
    page = "/".join([found["project"], location, repository, quote(found["image"], safe=""), found["digest"]])
    return f"https://console.cloud.google.com/artifacts/docker/{page}"
