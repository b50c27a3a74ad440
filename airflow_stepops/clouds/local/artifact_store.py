"""Artifact store ``local``: a folder on this machine, or one that all machines mount."""

from __future__ import annotations

from pathlib import Path
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
        return self.local_folder().as_uri()

    def local_folder(self) -> Path:
        """Return the folder."""
        return (settings.expanded(self.path) if self.path else settings.home() / "artifacts").absolute()

    def open(self) -> ArtifactStore:
        """Open the folder; it is made when missing."""
        from airflow_stepops.artifacts.store import ArtifactStore

        return ArtifactStore(self.root())
