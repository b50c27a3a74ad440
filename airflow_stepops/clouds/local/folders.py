"""Folders in settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from airflow_stepops.settings import expanded


def _absolute(path: Path) -> Path:
    if not expanded(path).is_absolute():
        raise ValueError("give a path that begins with / or ~: scheduler and workers run in different folders")
    return path


#: A path in a stack file. It means the same folder in every process, so it is not relative.
Folder = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]
