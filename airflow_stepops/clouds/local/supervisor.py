"""Looks after one local job: starts it, enforces its end, and leaves its state.

``python -m airflow_stepops.clouds.local.supervisor <job folder>`` returns once a process that nobody is the parent of
has taken the job over, so it outlives the Airflow task that launched the job. It imports no Airflow.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from airflow_stepops.clouds.exit_codes import SIGNALLED, killed_by
from airflow_stepops.clouds.local.job_folder import JobFolder
from airflow_stepops.images.locks import locked

_GRACE_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1
#: Who looks whether a job is abandoned holds its lock for a moment.
_LOCK_TRIES, _LOCK_PAUSE = 20, 0.05


def main(path: str) -> None:
    """Take over the job in a folder, unless another supervisor has it or it has ended."""
    folder = JobFolder(Path(path))
    for _ in range(_LOCK_TRIES):
        with folder.locked() as ours:
            if folder.ended:
                return
            if ours:
                supervisor = _Supervisor(folder)
                if os.fork() == 0:
                    supervisor.run()
                return
        if folder.state():
            return
        time.sleep(_LOCK_PAUSE)


class _Supervisor:
    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._request = folder.request()
        self._state: dict[str, Any] = {"created_at": self._request["created_at"]}
        self._say(state="pending")
        self._stopped: tuple[str, str] | None = None

    def run(self) -> None:
        """Run the job to its end, with its layers locked, so that nobody takes them for unused."""
        with ExitStack() as locks:
            for path in self._request["locks"]:
                locks.enter_context(locked(Path(path), shared=True))
            self._run()

    def _run(self) -> None:
        if self._folder.cancelled:
            self._end("stopped", kind="cancelled", reason="somebody asked for its end before it began")
        else:
            try:
                process = self._start()
            except OSError as error:
                self._end("failed", kind="infrastructure", reason=f"cannot start the process: {error}")
            else:
                self._say(state="running", started_at=time.time(), pid=process.pid)
                self._wait(process)
                _kill_group(process.pid)  # whatever the step started and left behind
                self._conclude(process.returncode)
        for place in self._request["discard"]:
            shutil.rmtree(place, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        # What a secret is called is in the request; its value is only in this process's own environment.
        secrets = {name: os.environ[name] for name in self._request["secret_names"]}
        with self._folder.log.open("ab") as log:
            return subprocess.Popen(
                self._request["command"],
                env={**secrets, **self._request["environment"]},
                cwd=self._request["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        timeout = self._request["timeout"]
        deadline = None if timeout is None else time.monotonic() + timeout
        kill_at: float | None = None
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
                return
            now = time.monotonic()
            if kill_at is not None:
                if now > kill_at:
                    _kill_group(process.pid)
                continue
            if self._folder.cancelled:
                self._stopped = ("cancelled", "somebody asked for its end")
            elif deadline is not None and now > deadline:
                self._stopped = ("timeout", f"ran longer than timeout={timeout} s")
            if self._stopped is not None:
                self._say(state="stopping", reason=self._stopped[1])
                process.terminate()
                kill_at = now + _GRACE_SECONDS

    def _conclude(self, code: int) -> None:
        if code == 0:
            self._end("succeeded", exit_code=code, reason="")
        elif self._stopped is not None:
            self._end("stopped", exit_code=code, kind=self._stopped[0], reason=self._stopped[1])
        elif code < 0 or code > SIGNALLED:
            kind, reason = killed_by(-code if code < 0 else code - SIGNALLED)
            self._end("failed", exit_code=code, kind=kind.value, reason=reason)
        else:
            self._end("failed", exit_code=code, kind="user_code", reason=f"exit code {code}")

    def _say(self, **facts: Any) -> None:
        self._state.update(facts)
        self._folder.write_state(self._state)

    def _end(self, state: str, **facts: Any) -> None:
        self._say(**facts, state=state, ended_at=time.time())


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _die_with_parent() -> None:
    """Let the kernel (Linux) kill the step when its supervisor is killed, so that nothing runs unwatched."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
