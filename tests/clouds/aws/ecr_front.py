"""What ECR does in front of a registry: logins end, repositories must be made, tags may be nobody's to change."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping

import httpx
from moto.ecr.models import ecr_backends

from tests.clouds.aws.emulated import REGION, EmulatedAws

_PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>blobs|manifests|tags)/(?P<reference>[^?]*)")

Answer = tuple[int, dict[str, str], bytes]


class EcrFront:
    """Decides which requests come to the registry.

    :param registry: ``host:port`` of an open registry that has the blobs.
    """

    def __init__(self, aws: EmulatedAws, registry: str) -> None:
        self._aws = aws
        self._registry = registry

    def __call__(self, method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        """Return ECR's own answer, ``None`` to let a request through."""
        given = headers.get("Authorization", "")
        if not given:
            return _refusal(401, "UNAUTHORIZED", "not authorized", {"WWW-Authenticate": 'Basic realm="ecr"'})
        user, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
        if user != "AWS" or password not in self._aws.logins:
            # As ECR says it: 403, no challenge.
            return _refusal(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
        asked = _PATH.match(path)
        return self._about(method, asked) if asked else None

    def _about(self, method: str, asked: re.Match[str]) -> Answer | None:
        repository = ecr_backends["123456789012"][REGION].repositories.get(asked["name"])
        if repository is None:
            said = f"The repository with name '{asked['name']}' does not exist in the registry with id '123456789012'"
            return _refusal(404, "NAME_UNKNOWN", said)
        is_tag = asked["kind"] == "manifests" and not asked["reference"].startswith("sha256:")
        if method == "PUT" and is_tag and repository.image_tag_mutability == "IMMUTABLE" and self._has(asked):
            said = f"The image tag '{asked['reference']}' already exists and cannot be overwritten: it is immutable."
            return _refusal(400, "TAG_INVALID", said)
        return None

    def _has(self, asked: re.Match[str]) -> bool:
        accepted = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        return httpx.head(f"http://{self._registry}{asked[0]}", headers=accepted).status_code == 200


def _refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return status, {"Content-Type": "application/json", **(headers or {})}, body
