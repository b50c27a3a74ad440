"""A place to run jobs in tests: a job service, an artifact store that its jobs reach, and an image with some steps."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.images.builder import BuiltImage, plan_image
from airflow_stepops.images.registry.repository import ImageRepository
from airflow_stepops.jobs.attempt import attempt_directory, job_name
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState, JobStatus
from airflow_stepops.options import Image
from airflow_stepops.runtime.result import JobResult
from airflow_stepops.runtime.spec import Attempt, JobSpec, StepSource
from airflow_stepops.stacks.components import ImageTarget

STEPS = Path(__file__).parent / "steps"


@dataclass(frozen=True)
class Ground:
    """One step operator with all that it needs.

    :param connect: opens its service, each time anew, as another process would.
    :param kill: kills the process of a job with SIGKILL, from outside.
    """

    connect: Callable[[], JobService]
    kill: Callable[[str], None]
    repository: ImageRepository
    image: BuiltImage
    store: ArtifactStore

    def request(self, step: str, *args: Any, secrets: dict[str, str] | None = None, **facts: Any) -> JobRequest:
        """Return the request of a new job that calls a step of ``steps/steps.py``.

        :param facts: fields of the request that differ from the usual.
        """
        attempt = Attempt("tests", uuid.uuid4().hex, step, -1, 1, "instance", "ti-1")
        directory = attempt_directory(self.store.root, attempt)
        source = StepSource("steps.py", "steps", step, "")
        spec = JobSpec(attempt, source, self.store.root, directory, list(args), secrets=secrets or {})
        self.store.put(spec.uri, spec.to_json())
        usual: dict[str, Any] = {
            "name": job_name(self.store.root, attempt),
            "attempt": attempt,
            "image": self.image.reference,
            "spec_uri": spec.uri,
            "secrets": spec.secrets,
            "artifact_root": self.store.root,
            "repository": self.repository,
            "labels": {"dag_id": attempt.dag_id},
        }
        return JobRequest(**{**usual, **facts})

    def result(self, request: JobRequest) -> JobResult:
        """Return what a job left."""
        directory = attempt_directory(self.store.root, request.attempt)
        return JobResult.from_json(self.store.get(f"{directory}/result.json"), request.attempt)

    def value(self, request: JobRequest) -> Any:
        """Return the small value that a job returned."""
        return self.result(request).values["return_value"]


def build_image(repository: ImageRepository, base: str | None, **image: Any) -> BuiltImage:
    """Make sure of the image with the steps."""
    return plan_image(
        Image(**image),
        target=ImageTarget(base, None),
        code_root=STEPS,
        dag_file=STEPS / "steps.py",
        repository=repository,
        builder=None,
        report=print,
    ).ensure()


def wait_for(looked: Callable[[], Any], what: str = "it", seconds: float = 60.0) -> Any:
    """Wait until a function returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := looked()):
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:.0f} s"
        time.sleep(0.1)
    return found


def ended(service: JobService, job_id: str) -> JobStatus:
    """Wait for the end of a job and return its last status."""

    def look() -> JobStatus | None:
        status = service.describe(job_id)
        return status if status.state.ended else None

    found: JobStatus = wait_for(look, f"the end of {job_id}")
    return found


def running(service: JobService, job_id: str) -> JobStatus:
    """Wait until a job's step has printed something, so that it is surely running, and return its status."""
    wait_for(lambda: service.logs(job_id).lines, f"a line of {job_id}")
    status = service.describe(job_id)
    assert status.state is JobState.RUNNING, status
    return status


def all_lines(service: JobService, job_id: str, cursor: str = "", limit: int = 1000) -> list[str]:
    """Return all lines of an ended job's log after a cursor."""
    lines: list[str] = []
    while True:
        chunk = service.logs(job_id, cursor, limit)
        assert len(chunk.lines) <= limit
        lines += chunk.lines
        cursor = chunk.cursor
        if not chunk.more:
            return lines
