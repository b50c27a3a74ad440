"""What this machine remembers of images: packed layers by what is in them, and facts about base images."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from airflow_stepops import settings
from airflow_stepops.images.layers import Layer

#: Seconds after which a layer that nobody used is deleted.
_KEEP = 14 * 24 * 3600


def key_of(*parts: object) -> str:
    """Return one hex key for JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ImageCache:
    """A folder that several processes may use at once; deleting it costs only time.

    :param folder: default: ``cache`` in :func:`airflow_stepops.settings.home`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or settings.home() / "cache"

    def layer(self, key: str, make: Callable[[Path], Layer]) -> Layer:
        """Return the layer with this key; when there is none, only one of all processes makes it.

        :param make: writes the layer to the file it is given.
        """
        layers = self.folder / "packed"
        found = self._find(layers, key)
        if found is not None:
            return found
        layers.mkdir(parents=True, exist_ok=True)
        with FileLock(layers / f"{key}.lock"):
            found = self._find(layers, key)
            return found if found is not None else self._make(layers, key, make)

    def _find(self, layers: Path, key: str) -> Layer | None:
        path, facts = layers / f"{key}.tar.gz", self.read(f"packed/{key}.json")
        match facts:
            case {"digest": str(digest), "size": int(size), "diff_id": str(diff_id)}:
                with suppress(FileNotFoundError):
                    if path.stat().st_size == size:
                        os.utime(path)
                        return Layer(digest, size, path, diff_id)
        return None

    def _make(self, layers: Path, key: str, make: Callable[[Path], Layer]) -> Layer:
        self._forget_unused(layers)
        path = layers / f"{key}.tar.gz"
        unfinished = layers / f"{key}.unfinished"
        try:
            layer = make(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        self.write(f"packed/{key}.json", {"digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size})
        return Layer(layer.digest, layer.size, path, layer.diff_id)

    def _forget_unused(self, layers: Path) -> None:
        limit = time.time() - _KEEP
        for path in layers.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < limit:
                    path.unlink()

    def read(self, name: str, max_age: float | None = None) -> Any:
        """Return a JSON value that was written, ``None`` when there is none.

        :param max_age: seconds after which it no longer counts.
        """
        path = self.folder / name
        try:
            if max_age is not None and time.time() - path.stat().st_mtime > max_age:
                return None
            return json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return None

    def write(self, name: str, value: Any) -> None:
        """Remember a JSON value, atomically."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".writing-", delete=False) as copy:
            json.dump(value, copy)
        Path(copy.name).replace(path)
