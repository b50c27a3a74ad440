"""The links from a step's task to its job, and to what belongs to the job. Visible while the job runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

#: XCom key under which a step says where it runs; Airflow clears it at the start of every try.
JOB_KEY = "stepops"


class _Link(BaseOperatorLink):
    """A URL that the step has told.

    Airflow keeps a link under the name of its class, so each has its own.
    """

    #: Which of the told facts it is.
    fact: ClassVar[str]

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, or ``""`` when the step ran in the worker or the service has no such page."""
        from airflow.sdk.execution_time.xcom import XCom

        if not getattr(operator, "step_operator", None):
            return ""
        job = XCom.get_value(ti_key=ti_key, key=JOB_KEY)
        return str(job.get(self.fact) or "") if isinstance(job, dict) else ""


class JobLink(_Link):
    """Opens the job in the console of its service."""

    name = "Job"
    fact = "console_url"


class JobLogsLink(_Link):
    """Opens the job's log in the console of its service."""

    name = "Job logs"
    fact = "logs_url"


class ImageLink(_Link):
    """Opens the job's image in the console of its registry."""

    name = "Image"
    fact = "image_url"


class ArtifactsLink(_Link):
    """Opens the folder of the attempt's artifacts in the console of their store."""

    name = "Artifacts"
    fact = "artifacts_url"


LINKS = (JobLink(), JobLogsLink(), ImageLink(), ArtifactsLink())
