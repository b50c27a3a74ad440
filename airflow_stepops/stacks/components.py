"""The four kinds of component. A flavor is one subclass, which holds the settings and opens the real thing.

The classes are read while DAG files are parsed, so their modules stay light: the methods import what they need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_stepops.artifacts.store import ArtifactStore
    from airflow_stepops.images.registry.repository import ImageRepository
    from airflow_stepops.jobs.protocol import JobService


class Component(BaseModel, ABC):
    """Settings of one component. Strict: an unknown key or another type is an error; a number is not text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    #: The name under which the flavor is registered.
    flavor: ClassVar[str]

    #: Whose cloud it belongs to: ``aws``, ``gcp``, ``azure`` and so on; ``""`` for none.
    cloud: ClassVar[str] = ""

    #: What the component is called in the stack file; set when it is read.
    name: str = ""

    def overridden(self, settings: Mapping[str, Any]) -> Self:
        """Return the component with step-level settings over its own, checked like the stack file.

        :raises StackError: naming the setting, what is allowed and the nearest allowed name.
        """
        from airflow_stepops.stacks.checks import model_error, refuse_secrets, unknown_key

        where = f"settings of {self.name!r}"
        refuse_secrets(settings, where)
        if "name" in settings:
            allowed = (key for key in type(self).model_fields if key != "name")
            raise unknown_key(f"{where}: name", "name", allowed, "setting")
        try:
            return type(self)(**{**self.model_dump(exclude_unset=True), **settings})
        except ValidationError as error:
            raise model_error(error, f"{where}: ", type(self)) from None

    def local_folder(self) -> Path | None:
        """Return the folder of this machine that it keeps things in, if it does: that is no code of anybody's."""
        return None

    def document(self) -> dict[str, Any]:
        """Return ``{"flavor": …, settings that differ from their defaults}``: JSON, without secrets by design.

        :func:`airflow_stepops.stacks.flavors.component_from_document` is its inverse; triggers carry it.
        """
        return {"flavor": self.flavor, **self.model_dump(mode="json", exclude_defaults=True)}


class ArtifactStoreComponent(Component):
    """Where values are kept."""

    @abstractmethod
    def root(self) -> str:
        """Return the URI of the store's root, without a slash at its end."""

    @abstractmethod
    def open(self) -> ArtifactStore:
        """Open the store with the credentials of the Airflow side."""

    def job_environment(self) -> Mapping[str, str]:
        """Return the non-secret variables that a job needs to open the store (endpoint, region)."""
        return {}

    def console_url(self, uri: str) -> str:
        """Return a link for people to a folder of the store, or ``""``."""
        return ""


class ContainerRegistryComponent(Component):
    """Where images are kept."""

    @abstractmethod
    def open(self) -> ImageRepository:
        """Open the repository that holds the images of steps, with the credentials of the Airflow side."""

    def console_url(self, reference: str) -> str:
        """Return a link for people to an image, or ``""``."""
        return ""


class ImageBuilderComponent(Component):
    """How the base of an image is made when a Dockerfile or Debian packages are asked for."""

    #: Whether ``dockerfile`` and ``apt_packages`` work.
    builds_dockerfiles: ClassVar[bool] = False

    def engine_address(self) -> str | None:
        """Return where the container engine listens, ``None`` to look for it in the usual places."""
        return None


@dataclass(frozen=True)
class ImageTarget:
    """What a step operator needs of an image.

    :param base: default base image; ``None`` when it runs our layers without a base.
    :param platform: ``linux/amd64`` and so on; ``None`` for this machine's.
    """

    base: str | None
    platform: str | None


class StepOperatorComponent(Component):
    """What runs a step somewhere else."""

    #: Settings that say where its jobs are, beside the connection.
    place: ClassVar[frozenset[str]] = frozenset()

    fallbacks: list[dict[str, Any]] = Field(
        default_factory=list,
        description="settings to put over these, one after the other, for attempts after one that found no machine",
    )

    @model_validator(mode="after")
    def _fallbacks_fit(self) -> Self:
        from airflow_stepops.errors import StackError

        for number in range(len(self.fallbacks)):
            try:
                self.fallen_back(number + 1)
            except StackError as error:
                raise ValueError(f"fallbacks[{number}]: {str(error).rstrip('.')}") from None
        return self

    def fallen_back(self, capacity_ends: int) -> Self:
        """Return the step operator for the next attempt: with its fallbacks in turn, and then as it is again.

        :param capacity_ends: how many earlier attempts ended because there was no machine.
        """
        over = capacity_ends % (len(self.fallbacks) + 1)
        return self.overridden({**self.fallbacks[over - 1], "fallbacks": []}) if over else self

    def at_place_of(self, document: Mapping[str, Any]) -> Self:
        """Return the step operator with the :attr:`place` of another document of it.

        :raises StackError: if a setting of the document is not valid.
        """
        from airflow_stepops.stacks.flavors import component_from_document

        noted = component_from_document(StepOperatorComponent, document)
        return self.model_copy(update={name: getattr(noted, name) for name in self.place})

    @abstractmethod
    def target(self) -> ImageTarget:
        """Return what images must be like to run here."""

    @abstractmethod
    def connect(self) -> JobService:
        """Return the service, with the credentials of the Airflow side."""

    def permissions(
        self, artifact_store: ArtifactStoreComponent, container_registry: ContainerRegistryComponent
    ) -> Mapping[str, Any]:
        """Return the least rights that Airflow and its jobs need, by name, in the cloud's own documents (JSON).

        :param artifact_store: of the stack.
        :param container_registry: of the stack.
        """
        return {}

    @abstractmethod
    def account_key(self) -> str:
        """Return a name for (flavor, connection, account, region): jobs with the same key share one watcher."""
