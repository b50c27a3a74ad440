"""What this machine remembers of images: packed layers by what is in them, and facts about base images."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_stepops.home_folders import cache_folder
from airflow_stepops.images.cache_folder import CacheFolder, touch
from airflow_stepops.images.layers import Layer


def key_of(*parts: object) -> str:
    """Return one hex key for JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ImageCache:
    """A folder that several processes may use at once; deleting it costs only time.

    It cleans itself when a layer is made. What it holds, each in a folder of its own:

    ``packed``    layers that were made here, compressed
    ``bases``     what registries say of base images
    ``engine``    what the docker builder is making of a Dockerfile
    ``uv``        wheels that uv has downloaded
    ``layers``    layers of images, unpacked for jobs of this machine
    ``bytecode``  what Python compiled for jobs of this machine; jobs that run do not notice when it goes

    :param folder: default: :func:`airflow_stepops.home_folders.cache_folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        self.engine = CacheFolder(self.folder / "engine")
        self.uv = CacheFolder(self.folder / "uv", spared=0)
        self._packed = CacheFolder(self.folder / "packed")

    def folders(self) -> dict[str, CacheFolder]:
        """Return its folders by what lies in them."""
        return {
            "unpacked layer": CacheFolder(self.folder / "layers"),
            "packed layer": self._packed,
            "base image": CacheFolder(self.folder / "bases"),
            "engine build": self.engine,
            "wheels": self.uv,
            "bytecode": CacheFolder(self.folder / "bytecode"),
        }

    def layer(self, key: str, make: Callable[[Path], Layer]) -> Layer:
        """Return the layer with this key; when there is none, only one of all processes makes it.

        :param make: writes the layer to the file it is given, the only one in its folder, which is deleted afterwards.
        """
        found = self._find(key)
        if found is not None:
            return found
        for folder in self.folders().values():
            folder.clean()
        with self._packed.making(key) as unfinished:
            found = self._find(key)
            return found if found is not None else self._make(key, make, unfinished / "layer")

    def _find(self, key: str) -> Layer | None:
        path, facts = self._packed.path / f"{key}.tar.gz", self.read(f"packed/{key}.json")
        match facts:
            case {"digest": str(digest), "size": int(size), "diff_id": str(diff_id)}:
                with suppress(FileNotFoundError):
                    if path.stat().st_size == size:
                        touch(path)
                        return Layer(digest, size, path, diff_id)
        return None

    def _make(self, key: str, make: Callable[[Path], Layer], unfinished: Path) -> Layer:
        layer = make(unfinished)
        path = self._packed.path / f"{key}.tar.gz"
        unfinished.replace(path)
        self.write(f"packed/{key}.json", {"digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size})
        return Layer(layer.digest, layer.size, path, layer.diff_id)

    def read(self, name: str, max_age: float | None = None) -> Any:
        """Return a JSON value that was written, ``None`` when there is none.

        :param max_age: seconds after which it no longer counts.
        """
        path = self.folder / name
        try:
            if max_age is not None and time.time() - path.stat().st_mtime > max_age:
                return None
            return json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def write(self, name: str, value: Any) -> None:
        """Remember a JSON value, atomically."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".writing-", delete=False) as copy:
            json.dump(value, copy)
        Path(copy.name).replace(path)
