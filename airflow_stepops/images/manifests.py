"""The JSON documents of an image, in the two families that there are: Docker's and OCI's."""

from __future__ import annotations

import json
import platform as host
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_stepops.errors import ImageError, RegistryError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = (OCI_INDEX, DOCKER_INDEX)


@dataclass(frozen=True)
class Family:
    """Media types that belong together."""

    manifest: str
    config: str
    layer: str


OCI = Family(
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
)
DOCKER = Family(
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)
FAMILIES = {family.manifest: family for family in (OCI, DOCKER)}

#: What to ask a registry for.
ACCEPT = ", ".join((*FAMILIES, *INDEXES))

_DEPTH = 50

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def host_platform() -> str:
    """Return the platform of containers on this machine, such as ``linux/amd64``."""
    machine = host.machine().lower()
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


@dataclass(frozen=True)
class Descriptor:
    """Points at a blob or manifest."""

    media_type: str
    digest: str
    size: int

    @classmethod
    def read(cls, document: Any, what: str) -> Descriptor:
        """Read the JSON form.

        :raises RegistryError: if it is not a descriptor of a sha256.
        """
        from airflow_stepops.images.registry.blobs import is_digest

        match document:
            case {"mediaType": str(media_type), "digest": str(digest), "size": int(size)} if (
                is_digest(digest) and size >= 0
            ):
                return cls(media_type, digest, int(size))
        raise RegistryError(
            f"{what}: {reprlib.repr(document)} is not a descriptor with mediaType, sha256 digest and size."
        )

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"mediaType": self.media_type, "size": self.size, "digest": self.digest}


@dataclass(frozen=True)
class Manifest:
    """The manifest of one image for one platform."""

    family: Family
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def read(cls, media_type: str, data: bytes, what: str) -> Manifest:
        """Read a manifest.

        :raises RegistryError: if it is of a kind that is not known, or not valid.
        """
        document = read_json(data, what)
        family = FAMILIES.get(media_type) or FAMILIES.get(str(document.get("mediaType")))
        if family is None:
            raise RegistryError(
                f"{what} is of type {reprlib.repr(media_type)}; known are {', '.join(FAMILIES)}. Push the image "
                "again with a current tool."
            )
        layers = document.get("layers")
        if not isinstance(layers, list):
            raise RegistryError(f"{what}: layers={reprlib.repr(layers)} is not a list.")
        config = Descriptor.read(document.get("config"), f"{what}: config")
        return cls(family, config, tuple(Descriptor.read(layer, f"{what}: layers") for layer in layers))

    def to_json(self) -> bytes:
        """Return the document: stable bytes for equal manifests."""
        return encode_json(
            {
                "schemaVersion": 2,
                "mediaType": self.family.manifest,
                "config": self.config.document(),
                "layers": [layer.document() for layer in self.layers],
            }
        )


def select_platform(index: bytes, platform: str, what: str) -> Descriptor:
    """Return the manifest for a platform in a multi-platform index.

    :param platform: ``os/architecture``.
    :raises ImageError: listing the platforms there are.
    """
    document = read_json(index, what)
    manifests = document.get("manifests")
    found: list[str] = []
    for entry in manifests if isinstance(manifests, list) else []:
        described = entry.get("platform") if isinstance(entry, dict) else None
        described = described if isinstance(described, dict) else {}
        name = f"{described.get('os')}/{described.get('architecture')}"
        variant = described.get("variant")
        # arm64 is v8 unless something else is said; other variants are other machines.
        if name == platform and variant in (None, "", "v8"):
            return Descriptor.read(entry, what)
        if name != "unknown/unknown":
            found.append(f"{name}/{variant}" if variant else name)
    raise ImageError(
        f"{what} has no image for {platform}; it has {', '.join(found) or 'none'}. Choose one of them with "
        "Image(platform=…), or another base with Image(base=…)."
    )


def layer_config(
    base: Mapping[str, Any],
    diff_ids: Sequence[str],
    history: Sequence[str],
    environment: Sequence[str],
    command: Sequence[str],
    directory: str,
) -> bytes:
    """Return the config of a base image with layers on top.

    :param base: config of the base image.
    :param history: what each layer is, in order.
    :param environment: the whole environment, as ``NAME=value``.
    """
    document = json.loads(json.dumps(base))
    run = document.get("config") or {}
    run |= {"Env": list(environment), "Cmd": list(command), "WorkingDir": directory}
    run.pop("Entrypoint", None)
    document |= {"created": "1970-01-01T00:00:00Z", "config": run}
    # Names of the container that a builder committed: they mean nothing here and would end in every digest.
    for name in ("container", "container_config", "id", "parent"):
        document.pop(name, None)
    below = (document.get("rootfs") or {}).get("diff_ids") or []
    document["rootfs"] = {"type": "layers", "diff_ids": [*below, *diff_ids]}
    entries = [{"created": "1970-01-01T00:00:00Z", "created_by": text} for text in history]
    document["history"] = [*(document.get("history") or []), *entries]
    return encode_json(document)


def read_json(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object.

    :raises RegistryError: if it is not one.
    """
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{what} is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise RegistryError(f"{what} is not a JSON object.")
    if not _is_shallow(document, _DEPTH):
        raise RegistryError(f"{what} is nested more than {_DEPTH} deep, which no document of an image is.")
    return document


def _is_shallow(value: Any, depth: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in inner)


def read_config(data: bytes, what: str) -> dict[str, Any]:
    """Read the config of an image: what is used of it is there in the form that the specification gives it.

    :raises RegistryError: if it is not valid, or damaged.
    """
    from airflow_stepops.images.registry.blobs import is_digest

    document = read_json(data, what)
    run, rootfs = document.get("config") or {}, document.get("rootfs") or {}
    well_formed = (
        isinstance(run, dict)
        and _all(str, run.get("Env") or [])
        and isinstance(rootfs, dict)
        and _all(str, rootfs.get("diff_ids") or [])
        and all(map(is_digest, rootfs.get("diff_ids") or []))
        and _all(dict, document.get("history") or [])
    )
    if not well_formed:
        raise RegistryError(f"{what} is not the config of an image: config, rootfs or history is not what it must be.")
    return document


def _all(kind: type, items: Any) -> bool:
    return isinstance(items, list) and all(isinstance(item, kind) for item in items)


def encode_json(document: Mapping[str, Any]) -> bytes:
    """Return stable bytes for equal documents."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
