"""Container registry ``ecr``: Amazon Elastic Container Registry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator, model_validator

from airflow_stepops.stacks.components import ContainerRegistryComponent

if TYPE_CHECKING:
    from airflow_stepops.images.registry.repository import ImageRepository

_PARTITIONS = r"amazonaws\.(?:com(?:\.cn)?|eu)|on\.(?:aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov"
#: Hosts of private registries.
ECR_HOST = re.compile(rf"(?P<account>\d{{12}})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?:{_PARTITIONS})")
_EMULATED = re.compile(r"[a-z0-9.-]+:\d+")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
#: What SageMaker takes as the reference of an image.
_LONGEST_REFERENCE = 255
_DIGEST = len("@sha256:") + 64
_OF_NEW_REPOSITORIES = ("scan_on_push", "immutable_tags", "kms_key")


class EcrContainerRegistry(ContainerRegistryComponent):
    """A private registry of ECR, of one's own account or another one."""

    flavor: ClassVar[str] = "ecr"
    cloud: ClassVar[str] = "aws"

    uri: str = Field(
        description="the registry and a prefix of names: 123456789012.dkr.ecr.eu-central-1.amazonaws.com/team"
    )
    repository: str = Field("stepops", description="name of the repository below the prefix")
    connection: str | None = Field(None, description="id of an Airflow connection of type aws; default: aws_default")
    create_repository: bool = Field(True, description="make the repository before the first push when it is missing")
    scan_on_push: bool = Field(False, description="a repository that is made scans its images")
    immutable_tags: bool = Field(False, description="a repository that is made never changes what a tag names")
    kms_key: str | None = Field(None, description="KMS key of a repository that is made; default: encryption of S3")

    @field_validator("uri")
    @classmethod
    def _is_a_registry(cls, value: str) -> str:
        host, slash, prefix = value.partition("/")
        if not (ECR_HOST.fullmatch(host) or _EMULATED.fullmatch(host)) or (slash and not _NAME.fullmatch(prefix)):
            raise ValueError(
                "give the registry's host and lower-case names, without https://, such as "
                "'123456789012.dkr.ecr.eu-central-1.amazonaws.com/team'; other registries have the flavor 'generic'"
            )
        return value

    @field_validator("repository")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("give a lower-case name, such as 'stepops'")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> EcrContainerRegistry:
        length = len(f"{self.uri}/{self.repository}") + _DIGEST
        if length > _LONGEST_REFERENCE:
            raise ValueError(
                f"references of images would have {length} characters, and jobs take {_LONGEST_REFERENCE}: give a "
                f"'uri' and a 'repository' of {_LONGEST_REFERENCE - _DIGEST - 1} characters together"
            )
        given = [name for name in _OF_NEW_REPOSITORIES if getattr(self, name)]
        if given and not self.create_repository:
            raise ValueError(f"{', '.join(given)}: no repository is made, since create_repository is off; drop it")
        return self

    def open(self) -> ImageRepository:
        """Open the repository with a login of the connection, which is renewed while it is open."""
        from airflow_stepops.clouds.aws.ecr import EcrRepository, NewRepository

        host, _, prefix = self.uri.partition("/")
        found = ECR_HOST.fullmatch(host)
        path = f"{prefix}/{self.repository}" if prefix else self.repository
        new = NewRepository(
            name=path,
            account=found["account"] if found else None,
            connection=self.connection,
            region=found["region"] if found else None,
            scan_on_push=self.scan_on_push,
            immutable_tags=self.immutable_tags,
            kms_key=self.kms_key,
        )
        return EcrRepository(
            f"{host}/{path}",
            self.connection,
            new.region,
            new=new if self.create_repository else None,
        )

    def console_url(self, reference: str) -> str:
        """Return the image's page."""
        from airflow_stepops.clouds.aws.console import console_url

        host, _, rest = reference.partition("/")
        path, _, digest = rest.partition("@")
        found = ECR_HOST.fullmatch(host)
        if found is None or not digest:
            return ""
        page = f"ecr/repositories/private/{found['account']}/{path}/_/image/{digest}/details"
        return console_url(found["region"], page)
