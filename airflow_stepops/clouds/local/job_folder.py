"""What is on disk of one local job, shared by the service and the job's supervisor.

``request.json``  what to run; written before the folder appears under its name
``state.json``    where the job is; replaced atomically; not there until a supervisor has begun
``lock``          held by the supervisor as long as it lives
``cancel``        somebody asked for the end
``log``           all that the job printed
``scratch``       code, home and temporary files of the process; gone when it has ended
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class JobFolder:
    """One job's folder.

    :param path: the folder; its name is the job's name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log"
        self.scratch = path / "scratch"

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return "ended_at" in self.state()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for the end of the job."""
        return (self.path / "cancel").exists()

    def cancel(self) -> None:
        """Ask for the end of the job."""
        with suppress(FileNotFoundError):  # the whole folder: an old job that was tidied away
            (self.path / "cancel").touch()

    def request(self) -> dict[str, Any]:
        """Return what to run."""
        return dict(json.loads((self.path / "request.json").read_bytes()))

    def state(self) -> dict[str, Any]:
        """Return the last state, ``{}`` before the first."""
        try:
            return dict(json.loads((self.path / "state.json").read_bytes()))
        except FileNotFoundError:
            return {}

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace the state, which is final when it holds ``ended_at``; a reader sees the old or the new one, whole."""
        new = self.path / f"state.json.{os.getpid()}"
        new.write_text(json.dumps(state))
        new.replace(self.path / "state.json")

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Try to be the one process that looks after the job; the lock goes with the process, however it dies.

        A child that is forked holds it too.

        :returns: whether the lock was free.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)
