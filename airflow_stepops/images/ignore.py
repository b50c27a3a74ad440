"""Which files of the code folder stay out of the image."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec, PathSpec

from airflow_stepops.errors import ContextError

_ALWAYS = frozenset(
    {".git", ".hg", ".svn", "__pycache__", ".venv", "node_modules", ".ipynb_checkpoints", ".DS_Store",
     ".mypy_cache", ".pytest_cache", ".ruff_cache", ".stepopsignore", ".dockerignore"}
)  # fmt: skip
# Airflow's own files, where its home is the code folder, and ours, which jobs do not read.
_AT_ROOT = frozenset({"stepops.yaml", "airflow.cfg", "airflow.db", "airflow.db-shm", "airflow.db-wal", "logs"})


class IgnoreRules:
    """The rules of one code folder: ``.stepopsignore`` (as Git reads it), else ``.dockerignore`` (as Docker reads it).

    :param root: the code folder.
    :raises ContextError: naming the file, when its patterns cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self._spec: PathSpec[Any] | None = None
        for name, read in ((".stepopsignore", GitIgnoreSpec.from_lines), (".dockerignore", _docker_spec)):
            path = root / name
            if path.is_file():
                try:
                    self._spec = read(path.read_text(encoding="utf-8").splitlines())
                except (ValueError, OSError) as error:
                    raise ContextError(f"{path} cannot be used: {error}.") from error
                break
        # Docker looks into ignored folders for what a later '!' brings back; Git does not.
        self.enters_ignored = isinstance(self._spec, PathSpec) and not isinstance(self._spec, GitIgnoreSpec)

    @staticmethod
    def never(path: str) -> bool:
        """Return whether a path (relative, with ``/``) stays out whatever the rules say."""
        name = path.rpartition("/")[2]
        return name in _ALWAYS or path in _AT_ROOT or name.endswith((".pyc", ".pyo"))

    def ignores(self, path: str, folder: bool = False) -> bool:
        """Return whether the rules leave out a path (relative, with ``/``)."""
        return self._spec is not None and self._spec.match_file(f"{path}/" if folder else path)


def _docker_spec(lines: Sequence[str]) -> PathSpec[Any]:
    """Say Docker's patterns in Git's words: anchored at the root, and the last that matches decides."""
    patterns = []
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        back = text.startswith("!")
        path = posixpath.normpath(text.removeprefix("!").strip().lstrip("/"))
        if path != ".":
            patterns.append(f"{'!' * back}/{path}")
    return PathSpec.from_lines("gitwildmatch", patterns)
