"""Artifact Registry: its API for repositories, and what it does in front of a registry."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.clouds.gcp.emulated import Answer, Call, EmulatedGcp, error

USER = "oauth2accesstoken"

_REPOSITORIES = re.compile(
    r"/v1/projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/repositories(?:/(?P<id>[^/]+))?"
)
_PULLED = re.compile(r"/v2/(?P<project>[^/]+)/(?P<repository>[^/]+)/(?P<image>.+)/(?:blobs|manifests|tags)/")


@dataclass
class ArtifactRegistry:
    """The API ``artifactregistry``.

    :param repositories: full names, and what was asked for.
    :param polls: how often an operation says that it is not done yet.
    """

    repositories: dict[str, Any] = field(default_factory=dict)
    polls: int = 1
    _operations: dict[str, int] = field(default_factory=dict)

    def has(self, project: str, repository: str) -> bool:
        """Return whether there is a repository, in any location."""
        return any(
            name.startswith(f"projects/{project}/") and name.endswith(f"/{repository}") for name in self.repositories
        )

    def __call__(self, call: Call) -> Answer:
        """Answer a call."""
        name = call.path.removeprefix("/v1/")
        if name in self._operations:
            self._operations[name] -= 1
            return 200, self._operation(name)
        found = _REPOSITORIES.fullmatch(call.path)
        assert found is not None, call.path
        if call.method == "GET":
            if name in self.repositories:
                return 200, {"name": name, **self.repositories[name]}
            return error(404, "NOT_FOUND", "Requested entity was not found.")
        if call.method == "DELETE":
            del self.repositories[name]
            return 200, {"name": f"{name.rpartition('/repositories/')[0]}/operations/{uuid.uuid4()}"}
        assert call.method == "POST"
        return self._create(f"{name}/{call.query['repositoryId']}", found, call.json)

    def _create(self, name: str, place: re.Match[str], document: Any) -> Answer:
        if name in self.repositories:
            return error(409, "ALREADY_EXISTS", "the repository already exists")
        assert document["format"] == "DOCKER"
        self.repositories[name] = document
        operation = f"projects/{place['project']}/locations/{place['location']}/operations/{uuid.uuid4()}"
        self._operations[operation] = self.polls
        return 200, self._operation(operation)

    def _operation(self, name: str) -> dict[str, Any]:
        return {"name": name, "done": True, "response": {}} if self._operations[name] <= 0 else {"name": name}


@dataclass
class GarFront:
    """Decides which requests come to the registry: those about repositories that were made."""

    artifact_registry: ArtifactRegistry

    def __call__(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes] | None:
        """Return Artifact Registry's own answer, ``None`` to let a request through."""
        asked = _PULLED.match(path)
        if asked is None or not headers.get("Authorization") or asked["repository"] == "gcr.io":
            return None
        if self.artifact_registry.has(asked["project"], asked["repository"]):
            return None
        said = {"code": "NAME_UNKNOWN", "message": f'Repository "{asked["repository"]}" not found'}
        return 404, {"Content-Type": "application/json"}, json.dumps({"errors": [said]}).encode()


def registry_user(gcp: EmulatedGcp, authorization: str) -> str | None:
    """Return who logs in to the registry; ``""`` for nobody, ``None`` for a token that is not good."""
    if not authorization:
        return ""
    user, _, token = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
    return gcp.caller(f"Bearer {token}") if user == USER else None
