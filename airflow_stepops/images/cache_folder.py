"""Folders of things that can be made again: who makes, uses and deletes them, and what of them goes."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from airflow_stepops.images.locks import locked

#: Seconds after which what nobody used is deleted.
KEEP_SECONDS = 14 * 24 * 3600
#: Bytes that one folder holds at most; what was used longest ago goes first.
MAX_BYTES = 10 * 10**9
_SPARED_SECONDS = 6 * 3600
_DAY = 24 * 3600

_LOCK, _UNFINISHED, _MEASURED = ".lock", ".unfinished", ".size"
#: Ends the names of files about the thing itself.
_BESIDE = (_LOCK, _MEASURED, ".json")
_DISCARDED = ".discarded-"
#: Its lock is held by the one process that cleans the folder.
_CLEANING = "cleaning"


@dataclass(frozen=True)
class Kept:
    """What a folder keeps under one key.

    :param paths: the thing itself first.
    :param used_at: Unix time.
    """

    key: str
    paths: tuple[Path, ...]
    used_at: float


class CacheFolder:
    """Things by key in a folder that several processes use at once.

    All names of a key begin with it and a dot, or are it: ``<key>.lock`` is held by who makes, uses or deletes the
    thing, ``<key>.unfinished`` is a folder for who makes it. Names that begin with a dot are of files that are written
    in a moment, and of what is being deleted.

    :param path: made when something is put into it.
    :param spared: what was used within so many seconds is never too much: an upload may be about to read it. 0 where
        all who use something hold its lock.
    """

    def __init__(self, path: Path, spared: float = _SPARED_SECONDS) -> None:
        self.path = path
        self._spared = spared

    @contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """Be the only one who makes the thing; waits for another who does.

        :returns: an empty folder, which is deleted afterwards.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        unfinished = self.path / f"{key}{_UNFINISHED}"
        with locked(self.lock(key)):
            discard(unfinished)  # of a process that was killed
            try:
                # In a folder of its own: what the killed process started may still write.
                unfinished.mkdir(exist_ok=True)
                yield Path(tempfile.mkdtemp(dir=unfinished))
            finally:
                discard(unfinished)

    @contextmanager
    def using(self, key: str) -> Iterator[Path]:
        """Use a folder together with others, so that nobody deletes it; it is made when missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.lock(key), shared=True):
            folder = self.path / key
            folder.mkdir(exist_ok=True)
            touch(folder)
            yield folder

    def unused(self, before: float) -> Iterator[Kept]:
        """Yield what nobody has used since a Unix time nor uses now, and what processes left that were killed."""
        return self._unused(self._all(), before)

    def _unused(self, found: Iterable[Kept], before: float) -> Iterator[Kept]:
        now = time.time()
        for kept in found:
            left = tuple(path for path in kept.paths if path.name.endswith(_UNFINISHED))
            old = kept.used_at < (before if _has_lock(kept.key) else now - _DAY) or kept.key.startswith(_DISCARDED)
            if (old or left) and self._is_free(kept.key):
                yield kept if old else Kept(kept.key, left, _used_at(left))

    def delete(self, kept: Kept) -> bool:
        """Delete what is kept, whatever it is, unless somebody uses it or has used it since.

        :returns: whether it is gone.
        """
        lock = self.lock(kept.key)
        if not _has_lock(kept.key) or lock.is_dir():
            return _discard_all(kept.paths)
        in_part = lock.exists() and lock not in kept.paths
        with suppress(OSError), locked(lock, wait=False) as ours:
            if ours and _used_at(kept.paths) == kept.used_at:
                gone = _discard_all(path for path in kept.paths if path != lock)
                if gone and not in_part:
                    lock.unlink(missing_ok=True)
                return gone
        return False

    def clean(self) -> None:
        """Delete what nobody has used for :data:`KEEP_SECONDS`, leftovers, and what is more than :data:`MAX_BYTES`.

        Only one process at a time does; it is no error when something cannot be deleted.
        """
        with suppress(OSError), locked(self.lock(_CLEANING), wait=False) as ours:
            if ours:
                found = self._all()
                gone = {kept for kept in self._unused(found, time.time() - KEEP_SECONDS) if self.delete(kept)}
                self._shrink([kept for kept in found if kept not in gone])

    def _shrink(self, found: list[Kept]) -> None:
        found.sort(key=lambda kept: kept.used_at)
        sizes = [self._size(kept) for kept in found]
        excess = sum(sizes) - MAX_BYTES
        for kept, size in zip(found, sizes, strict=True):
            if excess <= 0 or kept.used_at > time.time() - self._spared:
                break
            if size and self.delete(kept):
                excess -= size

    def _all(self) -> list[Kept]:
        groups: dict[str, list[Path]] = defaultdict(list)
        with suppress(FileNotFoundError):
            for path in self.path.iterdir():
                groups[path.name if path.name.startswith(".") else path.name.partition(".")[0]].append(path)
        groups.pop(_CLEANING, None)
        found = []
        for key, paths in sorted(groups.items()):
            paths.sort(key=lambda path: (path.name.endswith(_BESIDE), path.name))
            found.append(Kept(key, tuple(paths), _used_at(paths)))
        return found

    def _size(self, kept: Kept) -> int:
        """Return the number of bytes. Folders are measured once a day: they may hold a hundred thousand files."""
        measured = self.path / f"{kept.key}{_MEASURED}"
        with suppress(OSError, ValueError):
            if measured in kept.paths and measured.stat().st_mtime > time.time() - _DAY:
                return int(measured.read_text())
        size = sum(_bytes_below(path) for path in kept.paths)
        if _has_lock(kept.key) and any(path.is_dir() for path in kept.paths):
            with suppress(OSError):
                measured.write_text(str(size))
        return size

    def _is_free(self, key: str) -> bool:
        lock = self.lock(key)
        if not _has_lock(key) or not lock.is_file():
            return True
        with suppress(OSError), locked(lock, wait=False) as free:
            return free
        return False

    def lock(self, key: str) -> Path:
        """Return the file to lock for a key."""
        return self.path / f"{key}{_LOCK}"


def _has_lock(key: str) -> bool:
    return not key.startswith(".")


def touch(path: Path) -> None:
    """Note that something is in use; no error for a file of another user.

    :raises FileNotFoundError: if it is not there.
    """
    with suppress(PermissionError):
        os.utime(path)


def discard(path: Path) -> bool:
    """Delete a file or folder, in one step for whoever looks: nobody finds half of a folder.

    :returns: whether it is gone. What belongs to another user may stay.
    """
    gone = path.with_name(f"{_DISCARDED}{uuid.uuid4().hex}")
    try:
        path.rename(gone)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if stat.S_ISDIR(gone.lstat().st_mode):
        shutil.rmtree(gone, ignore_errors=True)
        if gone.exists():
            _make_writable(gone)
            shutil.rmtree(gone, ignore_errors=True)
    else:
        gone.unlink(missing_ok=True)
    return not os.path.lexists(gone)


def _discard_all(paths: Iterable[Path]) -> bool:
    gone = [discard(path) for path in paths]
    return all(gone)


def _make_writable(folder: Path) -> None:
    """Let this user delete what is in a folder, which may be read-only."""
    with suppress(OSError):
        folder.chmod(0o700)
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                _make_writable(Path(entry.path))


def _used_at(paths: Iterable[Path]) -> float:
    """Return when the newest of some paths was written or touched; what is only about the others counts when alone."""
    own: list[float] = []
    beside: list[float] = []
    for path in paths:
        with suppress(FileNotFoundError):
            (beside if path.name.endswith(_BESIDE) else own).append(path.lstat().st_mtime)
    return max(own or beside, default=0.0)


def _bytes_below(path: Path | str) -> int:
    size = 0
    with suppress(OSError):  # deleted meanwhile, or nobody else may look
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    size += _bytes_below(entry.path)
                else:
                    size += entry.stat(follow_symlinks=False).st_size
    return size
