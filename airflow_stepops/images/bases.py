"""What lies under our layers: nothing, an image of a registry, or an image that an engine builds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_stepops.errors import ImageError
from airflow_stepops.images.cache import ImageCache, key_of
from airflow_stepops.images.manifests import INDEXES, OCI, Descriptor, Family, Manifest, read_config, select_platform
from airflow_stepops.images.names import ImageName
from airflow_stepops.images.registry.blobs import is_digest
from airflow_stepops.images.registry.repository import ImageRepository

#: Seconds for which a tag counts as looked up.
_TAG_LIFETIME = 3600.0


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

    @property
    def asked(self) -> str | None:
        """What was asked for: the tag, where the identity is the digest that the tag has now."""
        return self.identity

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


class RegistryBase(Base):
    """An image of a registry. A tag is looked up once an hour; what a digest names is kept.

    :param reference: as a person wrote it.
    :param platform: ``os/architecture``.
    :param target: where the image goes: its login opens the base, if it is one for the base's registry too.
    :raises ImageError: if the reference is not the name of an image.
    :raises RegistryError: if its tag cannot be looked up.
    """

    def __init__(self, reference: str, platform: str, target: ImageRepository, cache: ImageCache) -> None:
        name = ImageName.parse(reference)
        self._name = name
        self._platform = platform
        self._cache = cache
        self._repository = _opened(name, target)
        self._digest = name.digest or self._looked_up(name)
        self.identity: str = f"{name.repository}@{self._digest}"

    @property
    def asked(self) -> str:
        """The reference as a person wrote it."""
        return str(self._name)

    @property
    def requests(self) -> int:
        """Number of network requests made for the base so far."""
        return self._repository.requests

    def _looked_up(self, name: ImageName) -> str:
        remembered = f"bases/{key_of(str(name))}.json"
        known = self._cache.read(remembered, max_age=_TAG_LIFETIME)
        if isinstance(known, str) and is_digest(known):
            return known
        digest = self._repository.head_manifest(name.tag or "latest")
        if digest is None:
            raise ImageError(f"there is no base image {name}: check its name and tag.")
        self._cache.write(remembered, digest)
        return digest

    def load(self) -> BaseImage:
        """Fetch manifest and config for the platform, unless this machine knows them."""
        remembered = f"bases/{key_of(self.identity, self._platform)}.json"
        known = self._cache.read(remembered)
        if not _is_intact(known):
            known = self._fetch()
            self._cache.write(remembered, [*known, _checksum(*known)])
        media_type, manifest, config = known[:3]
        return read_image(self.identity, self._repository, media_type, manifest.encode(), config.encode())

    def _fetch(self) -> list[str]:
        what = f"base image {self.identity}"
        media_type, data = self._repository.get_manifest(self._digest)
        if media_type in INDEXES:
            chosen = select_platform(data, self._platform, what)
            media_type, data = self._repository.get_manifest(chosen.digest)
        manifest = Manifest.read(media_type, data, what)
        config = self._repository.get_document(manifest.config)
        document = read_config(config, f"{what}: config")
        found = f"{document.get('os')}/{document.get('architecture')}"
        if found != self._platform:
            raise ImageError(
                f"{what} is for {found}, and the image is for {self._platform}. Choose another base, or set "
                f"Image(platform={found!r})."
            )
        return [media_type, data.decode(), config.decode()]


def read_image(name: str, repository: ImageRepository, media_type: str, manifest: bytes, config: bytes) -> BaseImage:
    """Make a base of its documents.

    :param name: what people call it.
    """
    described = Manifest.read(media_type, manifest, name)
    return BaseImage(name, repository, read_config(config, f"{name}: config"), described.family, described.layers)


def _is_intact(known: Any) -> bool:
    """Whether what this machine remembers of a base is what was written down."""
    match known:
        case [str(media_type), str(manifest), str(config), checksum]:
            return bool(checksum == _checksum(media_type, manifest, config))
    return False


def _checksum(*known: str) -> str:
    return key_of(*known)


def _opened(name: ImageName, target: ImageRepository) -> ImageRepository:
    from airflow_stepops.images.registry.client import RegistryClient

    if isinstance(target, RegistryClient) and name.registry == target.registry:
        return target.sibling(name.path)
    credentials = target.login_for(name.registry) if isinstance(target, RegistryClient) else None
    return RegistryClient(name.repository, credentials=credentials, push=False)
