"""The jobs of this machine, each a folder with a supervisor process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from airflow_stepops.clouds.local.job_folder import JobFolder
from airflow_stepops.clouds.local.logs import read_lines
from airflow_stepops.clouds.local.processes import kill_processes_of
from airflow_stepops.clouds.secrets import launcher_secrets
from airflow_stepops.clouds.sweeps import read_entry
from airflow_stepops.errors import EndKind, JobNotFoundError, JobRefusedError
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState, JobStatus, LogChunk
from airflow_stepops.runtime.spec import SPEC_VARIABLE

#: A job that no supervisor has taken over after so many seconds was left by its launcher.
_LAUNCH_SECONDS = 60.0
#: Ended jobs are kept, as a cloud keeps its own, up to this number.
_KEPT = 200
_NAME = re.compile(r"[a-z0-9-]{1,63}")


class LocalJobService(JobService):
    """Jobs as processes.

    :param root: folder that holds the jobs' folders.
    """

    poll_seconds: ClassVar[float] = 1.0
    seconds_between_calls: ClassVar[float] = 0.0
    enforces_timeout: ClassVar[bool] = True

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def submit(self, request: JobRequest) -> JobStatus:
        """Start the job, or return the one of this name; one whose launcher died half-way is started now."""
        folder = self._folder(request.name)
        secrets = launcher_secrets(request.secrets)
        if not folder.path.exists():
            from airflow_stepops.clouds.local.launch import make_folder

            self._tidy()
            make_folder(folder, request)
        if not folder.state():
            self._supervise(folder, secrets)
        return self.describe(request.name)

    def find(self, name: str) -> JobStatus | None:
        """Return the job with this name."""
        try:
            return self.describe(name)
        except JobNotFoundError:
            return None

    def describe(self, job_id: str) -> JobStatus:
        """Return the job. One whose supervisor was killed has failed."""
        folder = self._folder(job_id)
        try:
            _end_if_abandoned(folder)
            return _status(folder)
        except FileNotFoundError as error:
            raise JobNotFoundError(f"there is no job {job_id!r} in {self._root}") from error

    def changed(self, since: float) -> Mapping[str, JobStatus | None]:
        """Return the jobs that run, and those that have ended since."""
        found = {folder.path.name: read_entry(self.describe, folder.path.name) for folder in self._folders()}
        return {
            name: status
            for name, status in found.items()
            if status is None or status.ended_at is None or status.ended_at >= since
        }

    def cancel(self, job_id: str) -> None:
        """Tell the job's supervisor to end it: SIGTERM, and SIGKILL after 30 seconds."""
        with suppress(JobNotFoundError):
            folder = self._folder(job_id)
            if not folder.ended:
                folder.cancel()

    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        """Return lines from a byte offset on; the last one only when it is complete or the job has ended."""
        folder = self._folder(job_id)
        return read_lines(folder.log, cursor, limit, complete=folder.ended)

    def console_url(self, job_id: str) -> str:
        """Return the job's folder as a URL."""
        return self._folder(job_id).path.as_uri()

    def _folder(self, name: str) -> JobFolder:
        if not _NAME.fullmatch(name):
            raise JobNotFoundError(f"{name!r} is not the name of a local job")
        return JobFolder(self._root / name)

    def _folders(self) -> list[JobFolder]:
        try:
            return [JobFolder(path) for path in self._root.iterdir() if _NAME.fullmatch(path.name)]
        except FileNotFoundError:
            return []

    def _tidy(self) -> None:
        """Remove the oldest jobs, and what launchers left that died at their work."""
        ended = [(at, folder.path) for folder in self._folders() if (at := folder.state().get("ended_at"))]
        for _, path in sorted(ended, reverse=True)[_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)
        for path in self._root.glob(".*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > 86400:
                    shutil.rmtree(path, ignore_errors=True)

    def _supervise(self, folder: JobFolder, secrets: Mapping[str, str]) -> None:
        """Let a supervisor take the job over, in a session of its own."""
        os.utime(folder.path)  # whoever looks from now on waits for the supervisor
        log = folder.path / "supervisor.log"
        with log.open("ab") as out:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "airflow_stepops.clouds.local.supervisor", str(folder.path)],
                env={**os.environ, **secrets},
                cwd=folder.path,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                check=False,
            )
        if done.returncode != 0:
            said = log.read_text(errors="replace").strip().splitlines()
            raise JobRefusedError(
                f"the job's supervisor cannot start: {said[-1] if said else f'exit code {done.returncode}'} (all of it "
                f"is in {log}).",
                EndKind.INFRASTRUCTURE,
            )


def _status(folder: JobFolder) -> JobStatus:
    request, state = folder.request(), folder.state()
    kind = state.get("kind")
    return JobStatus(
        id=folder.path.name,
        state=JobState(state.get("state", "pending")),
        detail=request["note"],
        kind=EndKind(kind) if kind else None,
        reason=state.get("reason", ""),
        exit_code=state.get("exit_code"),
        created_at=request["created_at"],
        started_at=state.get("started_at"),
        ended_at=state.get("ended_at"),
    )


def _end_if_abandoned(folder: JobFolder) -> None:
    """Write the final state of a job whose supervisor is gone, and kill what it left."""
    state = folder.state()
    if "ended_at" in state:
        return
    if not state and not folder.cancelled and time.time() - folder.path.stat().st_mtime < _LAUNCH_SECONDS:
        return
    with folder.locked() as abandoned:
        state = folder.state()
        if not abandoned or "ended_at" in state:
            return
        kill_processes_of(folder.request()["environment"][SPEC_VARIABLE])
        if folder.cancelled:
            end = {"state": "stopped", "kind": "cancelled", "reason": "somebody asked for its end"}
        else:
            why = "its supervisor was killed" if state else "its launcher died before it began"
            end = {"state": "failed", "kind": "infrastructure", "reason": why}
        folder.write_state({**state, **end, "ended_at": time.time()})
    shutil.rmtree(folder.scratch, ignore_errors=True)
