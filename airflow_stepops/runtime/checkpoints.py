"""A folder that outlives the machine: what a step writes there is copied to the store, and given to its next attempt.

Below the folder of the task's checkpoints, each machine has its own::

    machine-<rank>/attempt-<n>/begun             the attempt has asked for its folder
    machine-<rank>/attempt-<n>/manifest.json     the files as they were: path → digest, size, object
    machine-<rank>/attempt-<n>/<blake3>          an object: what a file held

An attempt begins with the newest manifest, whose files may be objects of attempts before it. It writes nothing but its
own, and deletes nothing once a later attempt has begun: that one goes on with the same objects, although this one may
still run, as one does whose worker or machine was only thought to be dead.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from blake3 import blake3

from airflow_stepops.artifacts.hashing import hash_file
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import ArtifactError, IntegrityError, SpecError, StepopsError
from airflow_stepops.runtime.cluster import cluster
from airflow_stepops.runtime.spec import SCHEMA_VERSION, JobSpec, build, read_document

#: A file is copied when it has not changed between two looks.
_SECONDS_BETWEEN_LOOKS = 5.0
_BLOCK = 8 * 1024 * 1024
_ATTEMPT = re.compile(r"attempt-(\d+)/(.+)")
_MANIFEST = "manifest.json"
_BEGUN = "begun"
_OBJECT = re.compile(r"attempt-\d+/[0-9a-f]{64}")

_current: Checkpoints | None = None


def checkpoint_dir() -> Path:
    """Return a folder whose files are there again when the step is tried again, on whatever machine.

    Files are copied to the artifact store while the step runs, when they have not changed for some seconds, and once
    more when it fails or is stopped. Write a checkpoint under another name and rename it when it is whole, so that no
    half of it is copied. When the step has succeeded, its checkpoints are deleted. Of several machines each has a
    folder of its own.

    Outside of a step, as in a test that calls its function, it is an empty folder that is copied nowhere.

    :raises IntegrityError: if what an earlier attempt left has changed since.
    :raises ArtifactError: if the store cannot be read, or this machine's disk is too small.
    """
    if _current is None:
        return Path(tempfile.mkdtemp(prefix="stepops-checkpoints-"))
    return _current.folder()


@contextmanager
def kept_checkpoints(spec: JobSpec, store: ArtifactStore) -> Iterator[Checkpoints]:
    """Keep the checkpoints of the step in the block."""
    global _current
    outer, _current = _current, Checkpoints(spec, store)
    try:
        yield _current
    finally:
        _current.close()
        _current = outer


@dataclass(frozen=True)
class SavedFile:
    """A file as it is in the store.

    :param object: its object, below the machine's folder.
    :param size: in bytes.
    """

    object: str
    blake3: str
    size: int


class Checkpoints:
    """The checkpoints of one attempt on one machine.

    :param store: in which they are kept.
    """

    def __init__(self, spec: JobSpec, store: ArtifactStore) -> None:
        self._store = store
        self._root = f"{spec.checkpoints}/machine-{cluster().rank}" if spec.checkpoints else ""
        self._attempt = spec.attempt.try_number
        self._folder: Path | None = None
        self._files: dict[str, SavedFile] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._saved: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._copier = threading.Thread(target=self._copy, name="stepops-checkpoints", daemon=True)

    def folder(self) -> Path:
        """Return the folder, with what earlier attempts left; see :func:`checkpoint_dir`."""
        with self._lock:
            if self._folder is None:
                folder = Path(tempfile.mkdtemp(prefix="stepops-checkpoints-"))
                if self._root:
                    try:
                        self._restore(folder)
                    except BaseException:
                        shutil.rmtree(folder, ignore_errors=True)
                        raise
                    self._copier.start()
                self._folder = folder
            return self._folder

    def save(self) -> None:
        """Copy everything now: the step has ended, without success. What fails is said and not raised."""
        if self._folder is None or not self._root:
            return
        self._over.set()
        try:
            self._look(final=True)
        except Exception as error:  # noqa: BLE001 - why the step ended matters more
            _say(f"the last checkpoints could not be saved: {error}")

    def drop(self) -> None:
        """Delete the checkpoints: the step has succeeded. What fails is said and not raised."""
        if self._folder is None or not self._root:
            return
        self._over.set()
        with self._lock:
            try:
                self._forget()
            except StepopsError as error:
                _say(f"the checkpoints could not be deleted: {error}")

    def _forget(self) -> None:
        if self._later_has_begun():
            return
        self._files = {}
        # First, so that an attempt that begins just now begins without files.
        self._write_manifest()
        found = self._objects()
        if not self._later_has_begun(found):
            for number, name in found:
                if (number, name) != (self._attempt, _MANIFEST):
                    self._store.delete(f"{self._root}/attempt-{number}/{name}")

    def close(self) -> None:
        """Stop copying, and remove the folder."""
        self._over.set()
        if self._folder is not None:
            with self._lock:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _copy(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                self._look(final=False)
            except Exception as error:  # noqa: BLE001 - the store may be back for the next look
                _say(f"checkpoints could not be saved, trying again: {error}")

    def _look(self, *, final: bool) -> None:
        """Copy what has changed; unless it is the last look, only what did not change since the one before."""
        with self._lock:
            if self._over.is_set() and not final:
                return
            assert self._folder is not None
            now = dict(_files_in(self._folder))
            ready = now if final else {name: stamp for name, stamp in now.items() if self._seen.get(name) == stamp}
            self._seen = now
            files = {name: saved for name, saved in self._files.items() if name in now}
            for name, stamp in ready.items():
                if self._saved.get(name) != stamp:
                    saved = self._put(self._folder / name)
                    if saved is not None:
                        files[name], self._saved[name] = saved, stamp
            if files != self._files:
                before, self._files = self._files, files
                self._write_manifest()
                if not self._later_has_begun():
                    self._delete_unused(before)

    def _put(self, path: Path) -> SavedFile | None:
        """Copy a file; ``None`` when it changes meanwhile or is gone."""
        try:
            with path.open("rb") as file:
                digest, size = hash_file(file.fileno())
            known = next((known for known in self._files.values() if known.blake3 == digest), None)
            if known is not None:
                return known
            saved = SavedFile(f"attempt-{self._attempt}/{digest}", digest, size)
            uri, copied = f"{self._root}/{saved.object}", blake3()
            with path.open("rb") as file, self._store.writer(uri) as writer:
                while block := file.read(_BLOCK):
                    copied.update(block)
                    writer.write(block)
        except FileNotFoundError:
            return None
        if copied.hexdigest() == digest:
            return saved
        self._store.delete(uri)
        return None

    def _write_manifest(self) -> None:
        files = {name: dataclasses.asdict(saved) for name, saved in sorted(self._files.items())}
        document = {"version": SCHEMA_VERSION, "files": files}
        self._store.put(f"{self._root}/attempt-{self._attempt}/{_MANIFEST}", json.dumps(document).encode())

    def _objects(self) -> list[tuple[int, str]]:
        """Return what there is: number of the attempt, and name."""
        found = (_ATTEMPT.fullmatch(uri.removeprefix(f"{self._root}/")) for uri in self._store.list(self._root))
        return [(int(match[1]), match[2]) for match in found if match is not None]

    def _later_has_begun(self, found: list[tuple[int, str]] | None = None) -> bool:
        return any(number > self._attempt for number, _ in (self._objects() if found is None else found))

    def _delete_unused(self, before: dict[str, SavedFile]) -> None:
        used = {saved.object for saved in self._files.values()}
        for saved in before.values():
            if saved.object not in used and saved.object.startswith(f"attempt-{self._attempt}/"):
                self._store.delete(f"{self._root}/{saved.object}")

    def _restore(self, folder: Path) -> None:
        # Before the manifest is read: from now on no earlier attempt deletes what it names.
        self._store.put(f"{self._root}/attempt-{self._attempt}/{_BEGUN}", b"")
        attempts = [number for number, name in self._objects() if name == _MANIFEST and number <= self._attempt]
        if not attempts:
            return
        uri = f"{self._root}/attempt-{max(attempts)}/{_MANIFEST}"
        files = read_manifest(self._store.get(uri), uri)
        try:
            for name, saved in files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._fetch(saved, path)
        except OSError as error:
            raise ArtifactError(
                f"the checkpoints of {uri} could not be copied to this machine's temporary folder {folder}: "
                f"{error.strerror or error}. Ask for a larger disk, or let TMPDIR name a folder on one."
            ) from error
        self._files = files
        self._saved = self._seen = dict(_files_in(folder))

    def _fetch(self, saved: SavedFile, path: Path) -> None:
        uri, digest = f"{self._root}/{saved.object}", blake3()
        with self._store.reader(uri) as reader, path.open("xb") as file:
            while block := reader.read(_BLOCK):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != saved.blake3:
            raise IntegrityError(
                f"the checkpoint {uri} has changed since it was saved: its blake3 is {digest.hexdigest()}. Delete "
                f"{self._root} to begin without checkpoints."
            )


def read_manifest(data: bytes, uri: str) -> dict[str, SavedFile]:
    """Read a manifest strictly: path below the folder → file.

    :raises SpecError: naming what is wrong with it.
    """
    what = f"checkpoints {uri}"
    files = read_document(data, what).get("files")
    if not isinstance(files, dict):
        raise SpecError(f"{what}: files must be an object.")
    found = {}
    for name, document in files.items():
        saved = build(SavedFile, document, f"{what}: {name!r}")
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or str(parts) != name or "\0" in name or name == ".":
            raise SpecError(f"{what}: {name!r} is no path below a folder.")
        if not _OBJECT.fullmatch(saved.object):
            raise SpecError(f"{what}: {name!r}: {saved.object!r} is no object of a checkpoint.")
        found[name] = saved
    return found


def _files_in(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the regular files below a folder: path and what tells that one has changed."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                found = path.lstat()
            except FileNotFoundError:  # renamed just now
                continue
            if not path.is_symlink():
                yield path.relative_to(folder).as_posix(), (found.st_size, found.st_mtime_ns)


def _say(text: str) -> None:
    sys.stderr.write(f"airflow_stepops: {text}\n")
    sys.stderr.flush()
