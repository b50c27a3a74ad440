"""A place to run jobs in on the emulated Vertex AI."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import Any

from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.clouds.gcp.step_operator import VertexStepOperator
from airflow_stepops.jobs.protocol import JobRequest
from tests.clouds.gcp.vertex import Vertex
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


def submit_thrice_at_once(ground: OnVertex, emulated: Vertex, request: JobRequest) -> list[str]:
    """Submit a request by three launchers none of which sees a job of the others before its own, and return the ids."""
    ids: list[str] = []
    emulated.together = threading.Barrier(3)
    threads = [threading.Thread(target=lambda: ids.append(ground.connect().submit(request).id)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    emulated.together = None
    return ids
