"""Step operator ``local``: a process on the worker's machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from airflow_stepops import settings
from airflow_stepops.stacks.components import ImageTarget, StepOperatorComponent

if TYPE_CHECKING:
    from airflow_stepops.jobs.protocol import JobService


class LocalStepOperator(StepOperatorComponent):
    """Runs a step as a process that sees only the layers of its image and a clean environment.

    The process runs this machine's Python, so there is no base image. It needs the triggerer on the same machine, as
    with ``airflow standalone``. Resources are not enforced.
    """

    flavor: ClassVar[str] = "local"

    def target(self) -> ImageTarget:
        """Return that images need no base and are for this machine."""
        return ImageTarget(base=None, platform=None)

    def connect(self) -> JobService:
        """Return the jobs of this machine."""
        from airflow_stepops.clouds.local.service import LocalJobService

        return LocalJobService(settings.home() / "jobs")

    def account_key(self) -> str:
        """Return a key of the folder that holds the jobs."""
        return f"local:{settings.home()}"
