"""Looks after one local job: starts it, enforces its end, and leaves its state. Run as a detached process.

It outlives the Airflow task that launched the job, and imports nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_stepops.clouds.local.job_folder import JobFolder

_GRACE_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1


def main(path: str) -> None:
    """Run the job in a folder to its end, unless another supervisor does."""
    folder = JobFolder(Path(path))
    with folder.locked() as ours:
        if ours and not folder.ended:
            _Supervisor(folder).run()


class _Supervisor:
    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._request = folder.request()
        self._state: dict[str, Any] = {"state": "pending", "created_at": self._request["created_at"]}
        self._stopped: tuple[str, str] | None = None

    def run(self) -> None:
        if self._folder.cancelled:
            self._end("stopped", kind="cancelled", reason="stopped before it began")
            return
        try:
            process = self._start()
        except OSError as error:
            self._end("failed", kind="infrastructure", reason=f"cannot start the process: {error}")
            return
        self._say(state="running", started_at=time.time(), pid=process.pid)
        self._wait(process)
        _signal_group(process.pid, signal.SIGKILL)  # whatever the step started and left behind
        self._conclude(process.returncode)

    def _start(self) -> subprocess.Popen[bytes]:
        # What a secret is called is in the request; its value is only in this process's own environment.
        secrets = {name: os.environ[name] for name in self._request["secret_names"] if name in os.environ}
        with self._folder.log.open("ab") as log:
            return subprocess.Popen(
                self._request["command"],
                env={**self._request["environment"], **secrets},
                cwd=self._request["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = _after(time.monotonic(), self._request["timeout"])
        kill_at: float | None = None
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
                return
            now = time.monotonic()
            if kill_at is not None:
                if now > kill_at:
                    _signal_group(process.pid, signal.SIGKILL)
                continue
            if self._folder.cancelled:
                self._stopped = ("cancelled", "somebody asked for its end")
            elif deadline is not None and now > deadline:
                self._stopped = ("timeout", f"ran longer than timeout={self._request['timeout']} s")
            if self._stopped is not None:
                self._say(state="stopping", reason=self._stopped[1])
                _signal_group(process.pid, signal.SIGTERM)
                kill_at = now + _GRACE_SECONDS

    def _conclude(self, code: int) -> None:
        if code == 0:
            self._end("succeeded", exit_code=code)
        elif self._stopped is not None:
            self._end("stopped", exit_code=code, kind=self._stopped[0], reason=self._stopped[1])
        elif code < 0:
            name = signal.Signals(-code).name
            hint = ": perhaps the machine ran out of memory" if -code == signal.SIGKILL else ""
            reason = f"killed by signal {-code} ({name}){hint}"
            self._end("failed", exit_code=code, kind="infrastructure", reason=reason)
        else:
            self._end("failed", exit_code=code, kind="user_code", reason=f"exit code {code}")

    def _say(self, **facts: Any) -> None:
        self._state.update(facts)
        self._folder.write_state(self._state)

    def _end(self, state: str, **facts: Any) -> None:
        self._state.update(facts, state=state, ended_at=time.time())
        self._folder.write_state(self._state, final=True)


def _after(start: float, seconds: int | None) -> float | None:
    return None if seconds is None else start + seconds


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _die_with_parent() -> None:
    """Let the kernel (Linux) kill the step when its supervisor is killed, so that nothing runs unwatched."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
