"""Container registry ``local``: an OCI image layout in a folder on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from airflow_stepops import settings
from airflow_stepops.clouds.local.folders import Folder
from airflow_stepops.stacks.components import ContainerRegistryComponent

if TYPE_CHECKING:
    from airflow_stepops.images.registry.repository import ImageRepository


class LocalContainerRegistry(ContainerRegistryComponent):
    """Images in a folder, as an OCI layout that other tools read too."""

    flavor: ClassVar[str] = "local"

    path: Folder | None = Field(None, description="the folder; default: images in the home folder of stepops")

    def open(self) -> ImageRepository:
        """Open the layout; it is made when missing."""
        from airflow_stepops.images.registry.layout import LayoutRepository

        return LayoutRepository(self.local_folder())

    def local_folder(self) -> Path:
        """Return the folder."""
        return (settings.expanded(self.path) if self.path else settings.home() / "images").absolute()
