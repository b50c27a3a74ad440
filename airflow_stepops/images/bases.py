"""What lies under our layers: nothing, an image of a registry, or an image that an engine builds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_stepops.images.manifests import OCI, Descriptor, Family
from airflow_stepops.images.registry.repository import ImageRepository


@dataclass(frozen=True)
class BaseImage:
    """A base that was read.

    :param name: what people call it.
    :param repository: where its layers are; ``None`` when it has none.
    :param config: its config document.
    """

    name: str
    repository: ImageRepository | None
    config: Mapping[str, Any]
    family: Family = OCI
    layers: tuple[Descriptor, ...] = field(default=())

    @property
    def environment(self) -> list[str]:
        """Its environment, as ``NAME=value``."""
        return list((self.config.get("config") or {}).get("Env") or [])


class Base(ABC):
    """A base that may have to be fetched or built, which happens only when an image is."""

    #: What stands for the base in the plan of an image; ``None`` for no base.
    identity: str | None

    @abstractmethod
    def load(self) -> BaseImage:
        """Fetch or build it."""

    @property
    def requests(self) -> int:
        """Number of network requests made for it, besides those to the target repository."""
        return 0


class NoBase(Base):
    """Our layers alone, for a step operator that runs them on this machine's Python.

    :param platform: ``os/architecture``.
    """

    identity = None

    def __init__(self, platform: str) -> None:
        self._platform = platform

    def load(self) -> BaseImage:
        """Return a base without layers."""
        system, _, architecture = self._platform.partition("/")
        return BaseImage("no base", None, {"os": system, "architecture": architecture})
