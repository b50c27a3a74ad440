"""Artifact store ``local``: a folder on this machine, or one that all machines mount."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from airflow_stepops import settings
from airflow_stepops.clouds.local.folders import Folder
from airflow_stepops.stacks.components import ArtifactStoreComponent

if TYPE_CHECKING:
    from airflow_stepops.artifacts.store import ArtifactStore


class LocalArtifactStore(ArtifactStoreComponent):
    """Values in a folder."""

    flavor: ClassVar[str] = "local"

    path: Folder | None = Field(None, description="the folder; default: artifacts in the home folder of stepops")

    def root(self) -> str:
        """Return the folder as a ``file://`` URI."""
        path = self.path.expanduser() if self.path else settings.home() / "artifacts"
        return path.absolute().as_uri()

    def open(self) -> ArtifactStore:
        """Open the folder; it is made when missing."""
        from airflow_stepops.artifacts.store import ArtifactStore

        return ArtifactStore(self.root())
