"""Locks between processes. The kernel drops a lock with the process that holds it, however that dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, which is made when it is missing; its folder is there.

    :param shared: with all who share it as well.
    :param wait: ``False`` to go on without the lock when somebody else holds it.
    :returns: whether the lock is held.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = _acquire(path, operation if wait else operation | fcntl.LOCK_NB)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _acquire(path: Path, operation: int) -> int | None:
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, operation)
            # Whoever held the lock may have deleted its file: then others lock a new one.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError:  # made by another user; a network file system wants more than reading, others do not
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
