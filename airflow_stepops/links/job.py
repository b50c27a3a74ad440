"""The link from a step's task to its job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

#: XCom key under which a step says where it runs; Airflow clears it at the start of every try.
JOB_KEY = "stepops"


class JobLink(BaseOperatorLink):
    """Opens the job in the console of its service. Visible while the job runs."""

    name = "Job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, or ``""`` when the step ran in the worker or the service has no page for jobs."""
        from airflow.sdk.execution_time.xcom import XCom

        if not getattr(operator, "step_operator", None):
            return ""
        job = XCom.get_value(ti_key=ti_key, key=JOB_KEY)
        return str(job.get("console_url") or "") if isinstance(job, dict) else ""
