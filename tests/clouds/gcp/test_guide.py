"""The page "Vertex AI from zero": what it tells people to write works, and gives no more rights than are used."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.clouds.gcp.container_registry import GarContainerRegistry
from airflow_stepops.clouds.gcp.step_operator import VertexStepOperator
from airflow_stepops.jobs.attempt import job_name
from airflow_stepops.jobs.protocol import JobRequest
from airflow_stepops.runtime.spec import Attempt
from airflow_stepops.stacks.file import read
from tests.clouds.gcp.emulated import PROJECT, Answer, Call, EmulatedGcp
from tests.engines import run

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "vertex-ai.md").read_text()

#: API, method and end of the path → the permission that Google wants for it.
PERMISSIONS = {
    ("aiplatform", "POST", r"/customJobs$"): "aiplatform.customJobs.create",
    ("aiplatform", "GET", r"/customJobs$"): "aiplatform.customJobs.list",
    ("aiplatform", "GET", r"/customJobs/\d+$"): "aiplatform.customJobs.get",
    ("aiplatform", "POST", r"/customJobs/\d+:cancel$"): "aiplatform.customJobs.cancel",
    ("logging", "POST", r"/entries:list$"): "logging.logEntries.list",
}


def titled(title: str) -> str:
    """Return the file of the page that has a title."""
    found = re.search(rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```', GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    for name in ("stepops.yaml", "spectrum.py"):
        (tmp_path / name).write_text(titled(f"dags/{name}"))
    return tmp_path


def test_the_stack_of_the_guide_is_whole(guide: Path) -> None:
    stack = read(guide / "stepops.yaml").stack(None)
    assert isinstance(stack.artifact_store, GcsArtifactStore)
    assert isinstance(stack.container_registry, GarContainerRegistry)
    (operator,) = stack.step_operators
    assert isinstance(operator, VertexStepOperator)
    commands = GUIDE.replace("$PROJECT", "my-project-123")
    assert f"PROJECT=my-project-123 REGION={operator.region} BUCKET={stack.artifact_store.bucket}" in commands
    assert f"JOB={operator.service_account}" in commands
    assert f"gcloud artifacts repositories create {stack.container_registry.repository} " in commands


def test_the_pipeline_of_the_guide_is_one(guide: Path) -> None:
    run(sys.executable, "-c", "from spectrum import spectrum; print(spectrum)", cwd=guide)


def test_the_job_gets_the_roles_that_the_stack_needs(guide: Path) -> None:
    stack = read(guide / "stepops.yaml").stack(None)
    needed = stack.step_operators[0].permissions(stack.artifact_store, stack.container_registry)
    job = f"serviceAccount:{stack.step_operators[0].document()['service_account']}"
    roles = [
        (one["role"].rpartition("/")[2], "condition" in one) for one in needed["bindings"] if job in one["members"]
    ]
    given = re.findall(r"--condition(=None|-from-file=condition.json) .*\n.*\$JOB .*/roles/(\w+)", GUIDE)
    assert set(roles) == {(role, condition != "=None") for condition, role in given}
    assert "for kind in reading writing;" in GUIDE
    assert {"reading_role", "writing_role"} <= needed.keys()


def permission_of(call: Call) -> str:
    (found,) = [
        permission
        for (service, method, path), permission in PERMISSIONS.items()
        if call.service == service and call.method == method and re.search(path, call.path)
    ]
    return found


def test_the_role_of_the_guide_allows_what_a_job_s_life_needs_and_nothing_else(
    gcp: EmulatedGcp, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job: dict[str, Any] = {"createTime": "2026-01-01T00:00:00Z", "state": "JOB_STATE_RUNNING"}

    def vertex(call: Call) -> Answer:
        if call.method == "GET" and call.path.endswith("/customJobs"):
            return 200, {}
        return 200, {**job, "name": f"projects/1/locations/{operator.region}/customJobs/7"}

    monkeypatch.setitem(gcp.apis, "aiplatform", vertex)
    monkeypatch.setitem(gcp.apis, "logging", lambda _: (200, {}))
    operator = VertexStepOperator(region="europe-west4", connection=connection)
    root = "gs://values/steps"
    attempt = Attempt("dag", "run", "task", -1, 1, "instance", "ti-1")
    request = JobRequest(
        name=job_name(root, attempt),
        attempt=attempt,
        image=f"europe-west4-docker.pkg.dev/{PROJECT}/stepops/steps@sha256:{'0' * 64}",
        spec_uri=f"{root}/spec.json",
        artifact_root=root,
        repository=GarContainerRegistry(location="europe-west4", connection=connection).open(),
    )
    before = len(gcp.calls)
    service = operator.connect()
    submitted = service.submit(request)
    service.find(request.name)
    service.describe(submitted.id)
    service.changed(0.0)
    service.logs(submitted.id)
    service.cancel(submitted.id)
    used = {permission_of(call) for call in gcp.calls[before:] if call.service}
    role = re.search(r"--permissions=\\\n((?:[\w.,]+\\?\n)+)", GUIDE)
    assert role is not None
    assert used == set(role[1].replace("\\\n", "").strip().split(","))
