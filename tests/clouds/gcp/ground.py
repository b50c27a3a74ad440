"""A place to run jobs in on the emulated Vertex AI."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.clouds.gcp.step_operator import VertexStepOperator
from airflow_stepops.jobs.protocol import JobRequest
from tests.clouds.ground import Ground


@dataclass(frozen=True)
class OnVertex(Ground):
    """A ground whose jobs are told where the artifacts are."""

    component: VertexStepOperator
    values: GcsArtifactStore

    def request(self, step: str, *args: Any, secrets: dict[str, str] | None = None, **facts: Any) -> JobRequest:
        facts.setdefault("environment", self.values.job_environment())
        return super().request(step, *args, secrets=secrets, **facts)

    def having(self, **settings: Any) -> OnVertex:
        """Return the ground with other settings of the step operator."""
        component = self.component.overridden(settings)
        return dataclasses.replace(self, component=component, connect=component.connect)
