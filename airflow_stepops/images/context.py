"""The user's code: which files there are, checked before anything is packed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from airflow_stepops import settings
from airflow_stepops.errors import ConfigurationError, ContextError
from airflow_stepops.images.cache import key_of
from airflow_stepops.images.ignore import IgnoreRules
from airflow_stepops.images.layers import Entry

_DEFAULT_MAX_MB = 100.0
#: Files up to this many bytes are kept in memory between being looked at and being packed.
_IN_MEMORY = 64 << 10


@dataclass(frozen=True)
class Context:
    """The files of a code folder, as entries with paths relative to it."""

    root: Path
    entries: tuple[Entry, ...]

    @cached_property
    def digest(self) -> str:
        """Digest of names, modes and contents."""
        return f"sha256:{key_of(*((e.name, e.executable, e.sha256, e.link) for e in self.entries))}"

    @property
    def size(self) -> int:
        """Number of bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def placed(self, folder: str) -> list[Entry]:
        """Return the entries below a folder of the image."""
        return [dataclasses.replace(entry, name=f"{folder}/{entry.name}") for entry in self.entries]


def read_context(root: Path, without: Iterable[Path] = ()) -> Context:
    """Look at the code folder and read what belongs into the image.

    :param without: folders that steps write into: what is there is no code, and would change the image at each run.
    :raises ContextError: for a link that leaves the folder, a device or socket, a file that cannot be read or changes
        while it is read, and more bytes than ``max_context_mb`` of the settings.
    """
    root = Path(os.path.realpath(root))
    if not root.is_dir():
        raise ContextError(f"the code folder {root} is not a folder.")
    home = settings.find_home()
    found = _walk(root, {Path(os.path.realpath(folder)) for folder in (home, *without) if folder is not None})
    _check_size(root, found)
    entries = [_entry(root, path, status) for path, status in found]
    entries.sort(key=lambda entry: os.fsencode(entry.name))
    return Context(root, tuple(entries))


def code_file(given: str, folder: Path, code_root: Path, where: str) -> Path:
    """Return the file of the code folder that a relative path means.

    :param folder: what the path is relative to.
    :param where: what names it, for the error.
    :raises ContextError: if there is none, or it is outside of the code folder.
    """
    path = (folder / given).resolve()
    if not path.is_relative_to(code_root.resolve()):
        raise ContextError(
            f"{where}: {given!r} is outside of the code folder {code_root}. Put the file into it; a path is relative "
            "to the file that names it."
        )
    if not path.is_file():
        raise ContextError(f"{where}: there is no file {path}. A path is relative to the file that names it.")
    return path


def _walk(root: Path, without: set[Path]) -> list[tuple[str, os.stat_result]]:
    """Return relative paths and their state, of all that is not left out."""
    rules = IgnoreRules(root)
    found: list[tuple[str, os.stat_result]] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            items = list(os.scandir(root / folder))
        except OSError as error:
            raise ContextError(f"{root / folder} cannot be read: {error.strerror}. {_KEEP_OUT}") from error
        for item in items:
            path = f"{folder}{item.name}"
            if rules.never(path):
                continue
            is_folder = item.is_dir(follow_symlinks=False)
            ignored = rules.ignores(path, is_folder)
            if is_folder:
                if (not ignored or rules.enters_ignored) and root / path not in without:
                    folders.append(f"{path}/")
            elif not ignored:
                found.append((path, item.stat(follow_symlinks=False)))
    return found


_KEEP_OUT = "Move it out of the code folder, or add it to .stepopsignore."


def _entry(root: Path, path: str, status: os.stat_result) -> Entry:
    if path.rpartition("/")[2].startswith(".wh."):
        raise ContextError(f"{root / path}: in an image such a name means that another file is deleted. {_KEEP_OUT}")
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, link=_link(root, path))
    if not stat.S_ISREG(status.st_mode):
        raise ContextError(f"{root / path} is a device, socket or pipe, which cannot go into an image. {_KEEP_OUT}")
    return _read(root / path, path) or _read(root / path, path) or _changed(root / path)


def _read(source: Path, name: str) -> Entry | None:
    """Read a file, ``None`` when it changed meanwhile."""
    hashed = hashlib.sha256()
    kept = b""
    try:
        with source.open("rb", buffering=0) as stream:
            before = os.fstat(stream.fileno())
            if before.st_size <= _IN_MEMORY:
                kept = stream.read(_IN_MEMORY + 1)
                hashed.update(kept)
                count = len(kept)
            else:
                hashed = hashlib.file_digest(stream, "sha256")
                count = stream.tell()
            after = os.fstat(stream.fileno())
    except OSError as error:
        raise ContextError(f"{source} cannot be read: {error.strerror}. {_KEEP_OUT}") from error
    if count != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return None
    in_memory = count <= _IN_MEMORY
    return Entry(
        name, kept if in_memory else source, count, bool(before.st_mode & stat.S_IXUSR), sha256=hashed.hexdigest()
    )


def _changed(source: Path) -> Entry:
    raise ContextError(f"{source} changes while it is read. {_KEEP_OUT}")


def _link(root: Path, path: str) -> str:
    """Return the relative target of a link.

    :raises ContextError: if the target is not below the root.
    """
    target = str((root / path).readlink())
    place = os.path.dirname(root / path)  # noqa: PTH120 - text, since a Path would hide ".."
    straight = os.path.normpath(os.path.join(place, target))  # noqa: PTH118
    for reached in (straight, os.path.realpath(root / path)):
        if not Path(reached).is_relative_to(root):
            raise ContextError(
                f"{root / path} is a link to {target}, outside of the code folder {root}. Copy what it points at into "
                "the folder, or add the link to .stepopsignore."
            )
    return os.path.relpath(straight, place)


def _check_size(root: Path, found: list[tuple[str, os.stat_result]]) -> None:
    limit = _max_bytes()
    total = sum(status.st_size for _, status in found)
    if total <= limit:
        return
    folders: Counter[str] = Counter()
    for path, status in found:
        folders["/".join(path.split("/")[:-1][:2]) or "."] += status.st_size
    biggest = [f"{name} ({_mb(size)})" for name, size in folders.most_common(5)]
    advice = next((name for name, _ in folders.most_common(5) if name != "."), "the biggest files")
    raise ContextError(
        f"the code folder {root} holds {_mb(total)} and may hold {_mb(limit)}. Biggest folders: {', '.join(biggest)}. "
        f"Add {advice} to .stepopsignore if steps do not need it (data belongs into the artifact store), or raise "
        "max_context_mb."
    )


def _max_bytes() -> int:
    text = settings.get("max_context_mb")
    try:
        megabytes = _DEFAULT_MAX_MB if text is None else float(text)
    except ValueError:
        megabytes = 0
    if megabytes <= 0:
        raise ConfigurationError(f"[stepops] max_context_mb = {text!r}: give a number above 0.")
    return int(megabytes * 10**6)


def _mb(size: int) -> str:
    return f"{size / 10**6:,.1f} MB"
