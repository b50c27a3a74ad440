"""Folders that are written below the home folder of stepops, and what is done where they cannot be."""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from airflow_stepops import settings
from airflow_stepops.errors import ConfigurationError, cannot_write

_ADVICE = "Set STEPOPS_HOME, or [stepops] home, to a folder that stays and that this user can write into."


def make_folder(folder: Path) -> Path:
    """Make a folder for what has to stay, unless it is there, and return it.

    :raises ConfigurationError: if it cannot be made or written, with what to set.
    """
    try:
        _make_writable(folder)
    except OSError as error:
        raise ConfigurationError(cannot_write(folder, error)) from error
    return folder


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``cache`` in the home folder.

    Where nothing can be written there, it is one among the temporary files that only this user can enter.

    :raises ConfigurationError: if there is no such place either, with what to set.
    """
    home = settings.find_home()
    if home is None:
        return _temporary("the home folder of stepops is not known")
    folder = (home / "cache").absolute()
    try:
        _make_writable(folder)
        for path in folder.iterdir():  # another user may have made them
            _check_writable(path)
    except OSError as error:
        return _temporary(f"{error.filename or folder} cannot be written: {error.strerror or error}")
    return folder


def _temporary(reason: str) -> Path:
    try:
        folder = Path(tempfile.gettempdir()) / f"stepops-{os.geteuid()}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError as error:
        raise ConfigurationError(f"there is no place for caches: {reason}; {error}. {_ADVICE}") from error
    # All users share the folder above: whoever can write into this one can put layers there for us to run.
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or mode & 0o077:
        raise ConfigurationError(
            f"there is no place for caches: {reason}; and {folder} (of user {status.st_uid}, mode {mode:o}) is not a "
            f"folder that user {os.geteuid()} alone can enter. {_ADVICE}"
        )
    _warn(f"caches are in {folder}: {reason}. {_ADVICE}")
    return folder


@functools.cache
def _warn(text: str) -> None:
    """Log a warning, once in a process."""
    logging.getLogger(__name__).warning("[stepops] %s", text)


def _make_writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _check_writable(folder)


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(folder))
