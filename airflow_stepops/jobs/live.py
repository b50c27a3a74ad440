"""What the services say now of jobs that the ledger knows."""

from __future__ import annotations

import json
import threading

from airflow_stepops.jobs.known_job import forgotten, look_up
from airflow_stepops.jobs.ledger import LedgerEntry
from airflow_stepops.jobs.protocol import JobService, JobStatus
from airflow_stepops.stacks.models import Stack


class LiveJobs:
    """Asks services how jobs are, over one connection for each step operator and place. Several threads may use it.

    :param stack: whose step operators the jobs were given to.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._services: dict[str, JobService] = {}
        self._connecting = threading.Lock()

    def service(self, entry: LedgerEntry) -> JobService:
        """Connect to the service that a job was given to.

        :raises StackError: when the stack does not have the step operator any more.
        :raises SpecError: when the entry tells of the job of somebody else.
        """
        entry.check(self._stack.artifact_store.root())
        key = json.dumps(entry.component, sort_keys=True)
        with self._connecting:
            if key not in self._services:
                self._services[key] = self._stack.operator_of(entry.component).connect()
            return self._services[key]

    def status(self, entry: LedgerEntry) -> JobStatus | None:
        """Return what the service says of a job; ``None`` when it has not been given the job yet.

        A job that the service no longer knows has ended without a result.

        :raises TransientServiceError: when the service cannot be reached.
        :raises StackError: when the stack does not have the step operator any more.
        :raises SpecError: when the entry tells of the job of somebody else.
        """
        service = self.service(entry)
        if not entry.job_id:
            return service.find_now(entry.job_name)
        return look_up(service, entry) or forgotten(entry)
