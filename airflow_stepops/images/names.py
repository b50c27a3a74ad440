"""Names of images, read as Docker reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_stepops.errors import ImageError
from airflow_stepops.images.registry.blobs import is_digest

_DOCKER_HUB = "docker.io"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::\d{{1,5}})?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class ImageName:
    """Where an image is.

    :param registry: host, with its port where one is given.
    :param path: of the repository in the registry.
    :param tag: ``latest`` when neither a tag nor a digest is given.
    :param digest: wins over the tag.
    """

    registry: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> ImageName:
        """Read a reference such as ``python:3.12-slim`` or ``host:5000/team/base@sha256:…``.

        :raises ImageError: saying what is wrong with it.
        """
        rest, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise _refusal(text, f"{digest!r} is not sha256: and 64 hex digits")
        before, slash, last = rest.rpartition("/")
        last, colon, tag = last.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise _refusal(text, f"{tag!r} is not a tag")
        registry, path = _split(f"{before}{slash}{last}")
        if not _REGISTRY.fullmatch(registry):
            raise _refusal(text, f"{registry!r} is not a host, with or without a port")
        if not _PATH.fullmatch(path):
            raise _refusal(text, f"{path!r} is not the lower-case name of a repository")
        return cls(registry, path, tag or (None if at else "latest"), digest or None)

    @property
    def repository(self) -> str:
        """Registry and path."""
        return f"{self.registry}/{self.path}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (re.search(r"[.:\[]", first) or first == "localhost"):
        registry, path = first, rest
    else:
        registry, path = _DOCKER_HUB, name
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = _DOCKER_HUB
    if registry == _DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return registry, path


def _refusal(text: str, reason: str) -> ImageError:
    return ImageError(
        f"{text!r} is not the name of an image in a registry: {reason}. Write it like 'python:3.12-slim' or "
        "'registry.example.com:5000/team/base@sha256:…'."
    )
