"""Step operators of another package.

``slow``: jobs of this machine in a cloud that takes its time to answer. ``halved``: one that the triggerer cannot use.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from airflow_stepops import settings
from airflow_stepops.clouds.local.service import LocalJobService
from airflow_stepops.clouds.local.step_operator import LocalStepOperator
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobStatus, LogChunk


class SlowStepOperator(LocalStepOperator):
    """Jobs of this machine, behind a slow line.

    :param seconds: that each call takes.
    :param answer_seconds: that pass between a job's creation and the answer.
    """

    flavor: ClassVar[str] = "slow"

    seconds: float = 2.5
    answer_seconds: float = 0.0

    def connect(self) -> JobService:
        time.sleep(self.seconds)
        return SlowJobService(settings.home() / "jobs", self.seconds, self.answer_seconds)

    def account_key(self) -> str:
        return f"slow:{self.seconds}:{settings.home()}"


class HalvedStepOperator(LocalStepOperator):
    """Jobs of this machine, which a triggerer does not find: another version of the package is installed there."""

    flavor: ClassVar[str] = "halved"

    def account_key(self) -> str:
        if "triggerer" in sys.argv:
            raise ImportError("No module named 'halved.client'")
        return f"halved:{settings.home()}"


class SlowJobService(LocalJobService):
    """Who launches a job leaves the id of its process in the job's folder."""

    def __init__(self, root: Path, seconds: float, answer_seconds: float) -> None:
        super().__init__(root)
        self._seconds = seconds
        self._answer_seconds = answer_seconds

    def submit(self, request: JobRequest) -> JobStatus:
        status = super().submit(request)
        (self._folder(request.name).path / "launcher").write_text(str(os.getpid()))
        time.sleep(self._answer_seconds)
        return status

    def describe(self, job_id: str) -> JobStatus:
        time.sleep(self._seconds)
        return super().describe(job_id)

    def changed(self, since: float) -> Mapping[str, JobStatus | None]:
        time.sleep(self._seconds)
        return LocalJobService(self._root).changed(since)

    def cancel(self, job_id: str) -> None:
        time.sleep(self._seconds)
        super().cancel(job_id)

    def logs(self, job_id: str, cursor: str = "", limit: int = 1000) -> LogChunk:
        time.sleep(self._seconds)
        return super().logs(job_id, cursor, limit)
