"""Starts and stops processes on behalf of a parent, and leaves none behind when the parent goes away.

Run as a process with pipes for its standard input and output; its argument is the seconds that processes have to end
before they are killed. Each request is one JSON line, and so is each answer:

* ``{"do": "start", "name": …, "command": […], "log": path}`` → ``{"pid": …}``
* ``{"do": "stop", "name": …}`` → ``{"returncode": …}``
* ``{"do": "status"}`` → ``{name: exit code, or null while it runs}``

When the input ends, because the parent closed it or died, everything is stopped: each process by SIGTERM,
then with its group by SIGKILL, and at last whatever they started in sessions of their own.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

_PR_SET_CHILD_SUBREAPER = 36


class ProcessKeeper:
    """The processes of one parent, by name.

    :param grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str], log: str) -> dict[str, Any]:
        """Start a process in a session of its own; its output is appended to the log."""
        with Path(log).open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._processes[name] = process
        return {"pid": process.pid}

    def stop(self, name: str) -> dict[str, Any]:
        """Stop one process with its group."""
        process = self._processes.pop(name)
        _stop_groups([process], self._grace)
        return {"returncode": process.returncode}

    def status(self) -> dict[str, Any]:
        """Return the exit code of each process, ``None`` while it runs."""
        return {name: process.poll() for name, process in self._processes.items()}

    def stop_all(self) -> None:
        """Stop everything, in the end also what left its group."""
        _stop_groups(list(self._processes.values()), self._grace)
        left = psutil.Process().children(recursive=True)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)


def _stop_groups(processes: list[subprocess.Popen[bytes]], grace: float) -> None:
    for process in processes:
        process.terminate()  # alone: each tells its children in its own way
    deadline = time.monotonic() + grace
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent dies (Linux), so that none gets lost."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> None:
    """Answer requests until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _adopt_orphans()
    keeper = ProcessKeeper(float(sys.argv[1]))
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "start": keeper.start,
        "stop": keeper.stop,
        "status": keeper.status,
    }
    try:
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(actions[request.pop("do")](**request)), flush=True)
    finally:
        keeper.stop_all()


if __name__ == "__main__":
    main()
