"""A place to run jobs in on the emulated Azure ML."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from airflow_stepops.clouds.azure.artifact_store import AzureBlobArtifactStore
from airflow_stepops.clouds.azure.step_operator import AzureMLStepOperator
from airflow_stepops.jobs.protocol import JobRequest
from tests.clouds.ground import Ground


@dataclass(frozen=True)
class OnAzureML(Ground):
    """A ground whose jobs are told where the artifacts are."""

    component: AzureMLStepOperator
    values: AzureBlobArtifactStore

    def request(self, step: str, *args: Any, secrets: dict[str, str] | None = None, **facts: Any) -> JobRequest:
        facts.setdefault("environment", self.values.job_environment())
        return super().request(step, *args, secrets=secrets, **facts)

    def having(self, **settings: Any) -> OnAzureML:
        """Return the ground with other settings of the step operator."""
        component = self.component.overridden(settings)
        return dataclasses.replace(self, component=component, connect=component.connect)
