"""Environments of Azure ML that are an image and nothing else, named by it so that each is made once."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

#: Name of the environment; its versions are the images.
NAME = "stepops"


def version_of(image: str) -> str:
    """Return the version that is an image: its digest, and of what is before it as much as tells places apart."""
    place, _, digest = image.partition("@sha256:")
    if not digest:
        return sha256(image.encode()).hexdigest()
    return f"{digest}-{sha256(place.encode()).hexdigest()[:8]}"


def environment_version(image: str) -> dict[str, Any]:
    """Return the body that makes the version."""
    return {"properties": {"image": image, "osType": "Linux", "description": f"Image of steps: {image}"}}
