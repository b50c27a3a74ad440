"""Artifact store ``gcs``: a bucket of Google Cloud Storage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from airflow_stepops.stacks.components import ArtifactStoreComponent

if TYPE_CHECKING:
    from airflow_stepops.artifacts.store import ArtifactStore
    from airflow_stepops.clouds.gcp.bucket import GcsBucket

_BUCKET = re.compile(
    r"(?!\d+\.\d+\.\d+\.\d+$)(?=.{3,222}$)[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*"
)
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+/?")
_CONSOLE = "https://console.cloud.google.com/storage/browser"


class GcsArtifactStore(ArtifactStoreComponent):
    """Values in a bucket."""

    flavor: ClassVar[str] = "gcs"

    bucket: str = Field(description="name of the bucket, which has to exist")
    prefix: str = Field("", description="folder in the bucket; default: the bucket's top")
    connection: str | None = Field(
        None, description="id of an Airflow connection of type google_cloud_platform; default: google_cloud_default"
    )
    endpoint: str | None = Field(
        None, description="URL of an emulator, such as http://127.0.0.1:4443; default: Cloud Storage"
    )

    @field_validator("bucket")
    @classmethod
    def _is_a_bucket(cls, value: str) -> str:
        if not _BUCKET.fullmatch(value):
            raise ValueError(
                "give the name alone: lower-case letters, digits, dots, hyphens and underscores, 3 to 63 of them "
                "between dots; folders go into 'prefix'"
            )
        return value

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        if value and (not _PREFIX.fullmatch(value) or {".", ".."} & set(value.split("/"))):
            raise ValueError("give a folder such as 'team/artifacts', of letters, digits and !_.*'()-")
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not _ENDPOINT.fullmatch(value):
            raise ValueError("give a scheme and a host, such as 'http://127.0.0.1:4443'")
        return value

    def root(self) -> str:
        """Return ``gs://bucket`` with the prefix."""
        return f"gs://{self.bucket}/{self.prefix}".rstrip("/")

    def open(self) -> ArtifactStore:
        """Open the bucket with the credentials of the connection, which are renewed while it is open.

        :raises StackError: if there is no such connection.
        :raises ArtifactError: if there are no credentials.
        """
        from airflow_stepops.artifacts.store import ArtifactStore

        return ArtifactStore(self.root(), self._bucket().store(self.prefix))

    def job_environment(self) -> Mapping[str, str]:
        """Return the endpoint where it is not the usual one. The job's credentials are its service account's."""
        return self._bucket().environment()

    def console_url(self, uri: str) -> str:
        """Return the page of a folder in the console; ``""`` for an emulator."""
        return "" if self.endpoint else f"{_CONSOLE}/{uri.removeprefix('gs://')}"

    def _bucket(self) -> GcsBucket:
        from airflow_stepops.clouds.gcp.bucket import GcsBucket

        return GcsBucket(self.bucket, self.connection, self.endpoint)
