"""What the services say now of jobs that the ledger knows."""

from __future__ import annotations

import json
import threading

from airflow_stepops.errors import JobNotFoundError
from airflow_stepops.jobs.ledger import LedgerEntry
from airflow_stepops.jobs.protocol import JobService, JobState, JobStatus
from airflow_stepops.stacks.components import StepOperatorComponent
from airflow_stepops.stacks.flavors import component_from_document


class LiveJobs:
    """Asks services how jobs are, over one connection for each step operator. Several threads may use it."""

    def __init__(self) -> None:
        self._services: dict[str, JobService] = {}
        self._connecting = threading.Lock()

    def service(self, entry: LedgerEntry) -> JobService:
        """Connect to the service that a job was given to.

        :raises StackError: when this installation does not know the flavor.
        """
        key = json.dumps(entry.component, sort_keys=True)
        with self._connecting:
            if key not in self._services:
                self._services[key] = component_from_document(StepOperatorComponent, entry.component).connect()
            return self._services[key]

    def status(self, entry: LedgerEntry) -> JobStatus | None:
        """Return what the service says of a job; ``None`` when it has not been given the job yet.

        A job that the service no longer knows has ended without a result.

        :raises TransientServiceError: when the service cannot be reached.
        :raises StackError: when this installation does not know the flavor.
        """
        service = self.service(entry)
        if not entry.job_id:
            return service.find_now(entry.job_name)
        try:
            return service.describe(entry.job_id)
        except JobNotFoundError as error:
            return JobStatus(entry.job_id, JobState.FAILED, reason=str(error))
