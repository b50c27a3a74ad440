"""A step operator of another package: this machine, whose larger machines are never to be had."""

from __future__ import annotations

from typing import ClassVar, Literal

from airflow_stepops import settings
from airflow_stepops.clouds.local.service import LocalJobService
from airflow_stepops.clouds.local.step_operator import LocalStepOperator
from airflow_stepops.errors import EndKind, JobRefusedError
from airflow_stepops.jobs.protocol import JobRequest, JobStatus


class ScarceStepOperator(LocalStepOperator):
    """Runs steps here, on a ``small`` machine only."""

    flavor: ClassVar[str] = "scarce"

    machine: Literal["large", "medium", "small"] = "large"

    def connect(self) -> LocalJobService:
        """Return the jobs of this machine."""
        service = ScarceJobService(settings.home() / "jobs")
        service.machine = self.machine
        return service


class ScarceJobService(LocalJobService):
    """Refuses what is not small."""

    machine = ""

    def submit(self, request: JobRequest) -> JobStatus:
        """Start the job."""
        if self.machine != "small":
            raise JobRefusedError(f"there is no {self.machine} machine", EndKind.CAPACITY)
        return super().submit(request)
