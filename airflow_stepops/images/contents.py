"""The three layers that lie on a base, each made only when the cache has none with the same content."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from airflow_stepops.images.cache import ImageCache, key_of
from airflow_stepops.images.context import Context
from airflow_stepops.images.layers import Entry, Layer, write_layer
from airflow_stepops.images.plan import CODE, REQUIREMENTS, RUNTIME, Machine, folder
from airflow_stepops.images.wheels import entries_below, install, uv_version

_PACKAGE = Path(__file__).parents[1]
#: What the runtime needs beyond the standard library, in the releases that are installed here.
_WHEELS = ("blake3", "cloudpickle", "obstore", "typing-extensions")


def requirements_layer(cache: ImageCache, lines: Sequence[str], machine: Machine, directory: Path) -> Layer:
    """Return the layer of the user's requirements.

    :param lines: as :func:`~airflow_stepops.images.requirements.read_requirements` returns them.
    :param directory: where uv looks for the user's settings from.
    """
    return _installed(cache, REQUIREMENTS, lines, machine, directory, [])


def runtime_layer(cache: ImageCache, machine: Machine) -> Layer:
    """Return the layer of our own code that runs in the image, with its wheels."""
    return _installed(cache, RUNTIME, _runtime_wheels(), machine, _PACKAGE, runtime_files(), dependencies=False)


def runtime_digest() -> str:
    """Return the digest of what the runtime layer is made of, without making it."""
    files = ((entry.name, key_of(entry.source.hex())) for entry in runtime_files() if isinstance(entry.source, bytes))
    return f"sha256:{key_of(*files, *_runtime_wheels())}"


def code_layer(cache: ImageCache, context: Context) -> Layer:
    """Return the layer of the user's code."""

    def make(path: Path) -> Layer:
        return write_layer(context.placed(folder(CODE)), path, [folder(CODE)])

    return cache.layer(key_of(CODE, context.digest), make)


def _installed(
    cache: ImageCache,
    name: str,
    lines: Sequence[str],
    machine: Machine,
    directory: Path,
    files: list[Entry],
    dependencies: bool = True,
) -> Layer:
    def make(path: Path) -> Layer:
        entries = list(files)
        if any(not line.startswith("-") for line in lines):
            target = path.with_name("installed")
            install(lines, machine, target, directory=directory, wheels=cache.uv, dependencies=dependencies)
            entries += entries_below(target, folder(name))
        return write_layer(entries, path, [folder(name)])

    contents = [(entry.name, key_of(entry.source.hex())) for entry in files if isinstance(entry.source, bytes)]
    key = key_of(name, list(lines), contents, machine.platform, machine.python, machine.here, uv_version())
    return cache.layer(key, make)


def _runtime_wheels() -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in _WHEELS]


@cache
def runtime_files() -> list[Entry]:
    """Return our own files of the runtime layer; ``dag.py`` is the light one, which only marks functions."""
    sources: dict[str, Path] = {
        name: _PACKAGE / name for name in ("__init__.py", "errors.py", "options.py", "py.typed")
    }
    for part in ("artifacts", "runtime"):
        for path in (_PACKAGE / part).rglob("*.py"):
            sources[path.relative_to(_PACKAGE).as_posix()] = path
    sources["dag.py"] = _PACKAGE / "runtime" / "steps.py"
    entries = []
    for name, path in sorted(sources.items()):
        data = path.read_bytes()
        entries.append(Entry(f"{folder(RUNTIME)}/airflow_stepops/{name}", data, len(data)))
    return entries
