"""The jobs of this machine, each a folder with a supervisor process."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from airflow_stepops import settings
from airflow_stepops.clouds.local.job_folder import JobFolder
from airflow_stepops.errors import EndKind, JobNotFoundError, JobRefusedError
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState, JobStatus, LogChunk
from airflow_stepops.runtime.spec import SPEC_VARIABLE

_CHUNK_BYTES = 1 << 20
_LONGEST_LINE = 1 << 16
#: A job whose supervisor has not shown itself after so many seconds has none.
_START_SECONDS = 60.0


class LocalJobService(JobService):
    """Jobs as processes.

    :param root: folder that holds the jobs' folders.
    """

    poll_seconds: ClassVar[float] = 1.0
    seconds_between_calls: ClassVar[float] = 0.0
    enforces_timeout: ClassVar[bool] = True

    def __init__(self, root: Path) -> None:
        self._root = root

    def submit(self, request: JobRequest) -> JobStatus:
        """Start the job, or return the one of this name; one whose launcher died half-way is started now."""
        folder = self._folder(request.name)
        if not folder.path.exists():
            self._make(folder, request)
        if not folder.state():
            self._supervise(folder)
        return self.describe(request.name)

    def find(self, name: str) -> JobStatus | None:
        """Return the job with this name."""
        return self.describe(name) if self._folder(name).path.exists() else None

    def describe(self, job_id: str) -> JobStatus:
        """Return the job. One whose supervisor was killed has failed."""
        folder = self._folder(job_id)
        if not folder.path.exists():
            raise JobNotFoundError(f"there is no job {job_id!r} in {self._root}")
        if not folder.ended:
            self._end_if_abandoned(folder)
        state = folder.state()
        kind = state.get("kind")
        return JobStatus(
            id=job_id,
            state=JobState(state.get("state", "pending")),
            kind=EndKind(kind) if kind else None,
            reason=state.get("reason", ""),
            exit_code=state.get("exit_code"),
            created_at=state.get("created_at") or folder.request()["created_at"],
            started_at=state.get("started_at"),
            ended_at=state.get("ended_at"),
        )

    def changed(self, since: float) -> Mapping[str, JobStatus]:
        """Return the jobs that run, and those that have ended since."""
        found: dict[str, JobStatus] = {}
        with suppress(FileNotFoundError), os.scandir(self._root) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                ended = Path(entry.path, "ended")
                if not ended.exists() or ended.stat().st_mtime >= since:
                    found[entry.name] = self.describe(entry.name)
        return found

    def cancel(self, job_id: str) -> None:
        """Tell the job's supervisor to end it: SIGTERM, and SIGKILL after 30 seconds."""
        folder = self._folder(job_id)
        if folder.path.exists() and not folder.ended:
            folder.cancel()

    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        """Return lines from a byte offset on; the last one only when it is complete or the job has ended."""
        folder = self._folder(job_id)
        ended = folder.ended
        offset = int(cursor or 0)
        try:
            with folder.log.open("rb") as log:
                log.seek(offset)
                data = log.read(_CHUNK_BYTES)
                at_end = not log.read(1)
        except FileNotFoundError:
            return LogChunk((), cursor)
        lines: list[str] = []
        start = 0
        while start < len(data) and len(lines) < limit:
            end = data.find(b"\n", start, start + _LONGEST_LINE)
            step = end + 1 if end >= 0 else min(len(data), start + _LONGEST_LINE)
            if end < 0 and step - start < _LONGEST_LINE and not (ended and at_end):
                break
            lines.append(data[start : end if end >= 0 else step].decode(errors="replace").rstrip("\r"))
            start = step
        return LogChunk(lines, str(offset + start), more=bool(lines) and (start < len(data) or not at_end))

    def console_url(self, job_id: str) -> str:
        """Return the job's folder as a URL."""
        return self._folder(job_id).path.absolute().as_uri()

    def _folder(self, name: str) -> JobFolder:
        return JobFolder(self._root / name)

    def _make(self, folder: JobFolder, request: JobRequest) -> None:
        """Make the folder, whole or not at all."""
        self._root.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{request.name}-", dir=self._root))
        try:
            document = self._document(folder, new, request)
            (new / "request.json").write_text(json.dumps(document))
            new.chmod(0o755)
            new.rename(folder.path)
        except OSError:
            if not folder.path.exists():
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _document(self, folder: JobFolder, new: Path, request: JobRequest) -> dict[str, Any]:
        from airflow_stepops.images.unpack import unpack_layers

        if request.repository is None:
            raise JobRefusedError(
                "a local job reads its image from the stack's container registry, and none was given."
            )
        layers = unpack_layers(request.repository, request.image, settings.home() / "cache" / "layers")
        # The step may write where it is; the unpacked layers are shared, so it gets its own copy of the code.
        shutil.copytree(layers.code, new / "code", symlinks=True)
        for name in ("home", "tmp"):
            (new / name).mkdir()
        path = folder.path.absolute()
        return {
            "created_at": time.time(),
            "attempt": dataclasses.asdict(request.attempt),
            "image": request.image,
            "command": [getattr(sys, "_base_executable", sys.executable), "-S", "-m", "airflow_stepops.runtime"],
            "cwd": str(path / "code"),
            "environment": {
                "PATH": f"{layers.requirements}/bin:/usr/local/bin:/usr/bin:/bin",
                "HOME": str(path / "home"),
                "TMPDIR": str(path / "tmp"),
                "LANG": "C.UTF-8",
                "PYTHONPATH": f"{path / 'code'}:{layers.requirements}:{layers.runtime}",
                "PYTHONPYCACHEPREFIX": str(settings.home() / "cache" / "bytecode"),
                "PYTHONUNBUFFERED": "1",
                **request.environment,
                SPEC_VARIABLE: request.spec_uri,
            },
            "secret_names": _variables(request.secrets),
            "timeout": request.timeout,
        }

    def _supervise(self, folder: JobFolder) -> None:
        """Start the supervisor as a process of its own session, which nobody waits for."""
        with (folder.path / "supervisor.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "airflow_stepops.clouds.local.supervisor", str(folder.path.absolute())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end_if_abandoned(self, folder: JobFolder) -> None:
        state = folder.state()
        if not state and time.time() - folder.path.stat().st_mtime < _START_SECONDS:
            return
        with folder.locked() as abandoned:
            if not abandoned or folder.ended:
                return
            state = folder.state()
            if "pid" in state:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(state["pid"], signal.SIGKILL)
            reason = "its supervisor was killed" if state else "its supervisor was never started"
            final = {**state, "state": "failed", "kind": "infrastructure", "reason": reason, "ended_at": time.time()}
            folder.write_state(final, final=True)


def _variables(secrets: Mapping[str, str]) -> list[str]:
    """Return the variables of this machine that secret references name."""
    return [reference.removeprefix("env:") for reference in secrets.values() if reference.startswith("env:")]
