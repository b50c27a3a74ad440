"""Artifact store ``s3``: a bucket of S3, or of a store that speaks its protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from airflow_stepops.stacks.components import ArtifactStoreComponent

if TYPE_CHECKING:
    from airflow_stepops.artifacts.store import ArtifactStore
    from airflow_stepops.clouds.aws.bucket import S3Bucket

_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+/?")


class S3ArtifactStore(ArtifactStoreComponent):
    """Values in a bucket."""

    flavor: ClassVar[str] = "s3"
    cloud: ClassVar[str] = "aws"

    bucket: str = Field(description="name of the bucket, which has to exist")
    prefix: str = Field("", description="folder in the bucket; default: the bucket's top")
    connection: str | None = Field(None, description="id of an Airflow connection of type aws; default: aws_default")
    region: str | None = Field(None, description="the bucket's region; default: asked of the bucket")
    endpoint: str | None = Field(
        None, description="URL of an S3-compatible store, such as https://minio.example.com:9000; default: AWS"
    )
    kms_key: str | None = Field(None, description="KMS key to encrypt with; default: as the bucket is set")

    @field_validator("bucket")
    @classmethod
    def _is_a_bucket(cls, value: str) -> str:
        if not _BUCKET.fullmatch(value):
            raise ValueError(
                "give the name alone: 3 to 63 lower-case letters, digits, dots and hyphens; folders go into 'prefix'"
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
            raise ValueError("give a scheme and a host, such as 'https://minio.example.com:9000'")
        return value

    def root(self) -> str:
        """Return ``s3://bucket`` with the prefix."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def open(self) -> ArtifactStore:
        """Open the bucket with the credentials of the connection, which are renewed while it is open.

        :raises StackError: if there is no such connection.
        :raises ArtifactError: if the bucket's region is not given and cannot be asked for.
        """
        from airflow_stepops.artifacts.store import ArtifactStore

        return ArtifactStore(self.root(), self._bucket().store(self.prefix))

    def job_environment(self) -> Mapping[str, str]:
        """Return region, endpoint and encryption. The job's credentials are those of its role."""
        return self._bucket().environment()

    def console_url(self, uri: str) -> str:
        """Return the folder's page."""
        from airflow_stepops.clouds.aws.console import console_url

        if self.endpoint is not None:
            return ""
        folder = uri.removeprefix(f"s3://{self.bucket}").strip("/")
        return console_url(self._bucket().found_region(), f"s3/buckets/{self.bucket}?prefix={folder}/")

    def _bucket(self) -> S3Bucket:
        from airflow_stepops.clouds.aws.bucket import S3Bucket

        return S3Bucket(self.bucket, self.connection, self.region, self.endpoint, self.kms_key)
