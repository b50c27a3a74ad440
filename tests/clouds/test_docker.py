"""Jobs as containers: on a real Podman, from a real registry."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.clouds.docker.service import DockerJobService
from airflow_stepops.errors import EndKind, JobNotFoundError, JobRefusedError, TransientServiceError
from airflow_stepops.images.builder import BuiltImage, plan_image
from airflow_stepops.images.registry.client import RegistryClient
from airflow_stepops.jobs.attempt import attempt_directory, job_name
from airflow_stepops.jobs.protocol import JobRequest, JobState, JobStatus
from airflow_stepops.options import Image
from airflow_stepops.runtime.result import JobResult
from airflow_stepops.runtime.spec import Attempt, JobSpec, StepSource
from airflow_stepops.stacks.components import ImageTarget
from tests.engines import Podman

STEPS = """
import os, sys, time
from airflow_stepops.dag import step

@step
def answer():
    return 42

@step
def wait():
    print("waiting", flush=True)
    try:
        time.sleep(300)
    finally:
        print("cleaned up", flush=True)

@step
def leave():
    os._exit(3)

@step
def talk(count):
    for number in range(count):
        print("line", number)
    sys.stdout.write("no end")
    sys.stdout.flush()

@step
def secret():
    return [os.environ["TOKEN"][::-1], sorted(name for name in os.environ if name.startswith("TOKEN"))]
"""


@pytest.fixture(scope="module")
def image(
    registry: str, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BuiltImage, RegistryClient]:
    root = tmp_path_factory.mktemp("code")
    (root / "steps.py").write_text(STEPS)
    repository = RegistryClient(f"{registry}/jobs")
    built = plan_image(
        Image(),
        target=ImageTarget(base_image, None),
        code_root=root,
        dag_file=root / "steps.py",
        repository=repository,
        builder=None,
        report=print,
    ).ensure()
    return built, repository


@pytest.fixture
def service(podman: Podman) -> DockerJobService:
    return DockerJobService(podman.socket, network="host")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri())


@pytest.fixture
def request_for(image: tuple[BuiltImage, RegistryClient], store: ArtifactStore) -> Callable[..., JobRequest]:
    """Make the request of a job that calls one of the steps above."""

    def make(function: str, *args: object, **facts: object) -> JobRequest:
        attempt = Attempt("dag", uuid.uuid4().hex, function, -1, 1, "instance", "ti-1")
        spec = JobSpec(
            attempt,
            StepSource("steps.py", "steps", function, ""),
            store.root,
            attempt_directory(store.root, attempt),
            list(args),
            secrets=dict(facts.get("secrets", {})),  # type: ignore[call-overload]
        )
        store.put(spec.uri, spec.to_json())
        built, repository = image
        return JobRequest(
            job_name(store.root, attempt),
            attempt,
            str(facts.get("image", built.reference)),
            spec.uri,
            secrets=spec.secrets,
            artifact_root=store.root,
            repository=repository,
        )

    return make


def ended(service: DockerJobService, job_id: str) -> JobStatus:
    deadline = time.monotonic() + 60
    while not (status := service.describe(job_id)).state.ended:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def printed(service: DockerJobService, job_id: str, limit: int = 1000) -> list[str]:
    lines: list[str] = []
    cursor, more = "", True
    while more:
        chunk = service.logs(job_id, cursor, limit)
        assert len(chunk.lines) <= limit
        lines += chunk.lines
        cursor, more = chunk.cursor, chunk.more
    return lines


def result(store: ArtifactStore, request: JobRequest) -> JobResult:
    directory = attempt_directory(store.root, request.attempt)
    return JobResult.from_json(store.get(f"{directory}/result.json"), request.attempt)


def until_it_prints(service: DockerJobService, job_id: str, line: str) -> None:
    deadline = time.monotonic() + 30
    while line not in printed(service, job_id):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_runs_the_image_and_leaves_its_result(
    service: DockerJobService, store: ArtifactStore, request_for: Callable[..., JobRequest]
) -> None:
    request = request_for("answer")
    service.submit(request)
    status = ended(service, request.name)
    assert (status.state, status.exit_code) == (JobState.SUCCEEDED, 0)
    assert status.created_at is not None
    assert status.started_at is not None
    assert status.ended_at is not None
    assert status.created_at <= status.started_at <= status.ended_at
    assert result(store, request).values == {"return_value": 42}


def test_submitting_twice_makes_one_container(
    service: DockerJobService, podman: Podman, request_for: Callable[..., JobRequest]
) -> None:
    request = request_for("answer")
    first, second = service.submit(request), service.submit(request)
    assert first.id == second.id == request.name
    assert podman.run("ps", "-a", "--filter", f"name={request.name}", "--format", "{{.Names}}").split() == [
        request.name
    ]


def test_a_container_that_was_created_but_not_started_is_started(
    service: DockerJobService, store: ArtifactStore, request_for: Callable[..., JobRequest]
) -> None:
    request = request_for("answer")
    service._create(request)
    assert service.describe(request.name).state is JobState.PENDING
    service.submit(request)
    assert ended(service, request.name).state is JobState.SUCCEEDED


def test_a_container_that_is_not_ours_is_left_alone(
    service: DockerJobService, podman: Podman, base_image: str, request_for: Callable[..., JobRequest]
) -> None:
    request = request_for("answer")
    podman.run("create", "--name", request.name, base_image, "true")
    with pytest.raises(JobRefusedError, match="no step operator made"):
        service.submit(request)
    podman.run("rm", request.name)


def test_a_killed_step_says_so(
    service: DockerJobService, podman: Podman, request_for: Callable[..., JobRequest]
) -> None:
    request = request_for("wait")
    service.submit(request)
    until_it_prints(service, request.name, "waiting")
    podman.run("kill", "--signal", "KILL", request.name)
    status = ended(service, request.name)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.INFRASTRUCTURE, -9)
    assert "killed by signal 9" in status.reason


def test_an_exit_of_the_step_has_its_code(service: DockerJobService, request_for: Callable[..., JobRequest]) -> None:
    request = request_for("leave")
    service.submit(request)
    status = ended(service, request.name)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.USER_CODE, 3)


def test_cancelling_lets_the_step_clean_up_and_leaves_a_result(
    service: DockerJobService, store: ArtifactStore, request_for: Callable[..., JobRequest]
) -> None:
    request = request_for("wait")
    service.submit(request)
    until_it_prints(service, request.name, "waiting")
    service.cancel(request.name)
    service.cancel(request.name)
    assert ended(service, request.name).state is JobState.STOPPED
    assert result(store, request).status == "stopped"
    assert "cleaned up" in printed(service, request.name)
    service.cancel(request.name)
    service.cancel("never-there")


def test_an_unknown_job_is_said_to_be_unknown(service: DockerJobService) -> None:
    assert service.find("never-there") is None
    with pytest.raises(JobNotFoundError, match="never-there"):
        service.describe("never-there")


def test_a_list_of_jobs_shows_which_have_ended(
    service: DockerJobService, request_for: Callable[..., JobRequest]
) -> None:
    done, waiting = request_for("answer"), request_for("wait")
    service.submit(done)
    service.submit(waiting)
    ended(service, done.name)
    changed = service.changed(0)
    assert changed[done.name].state.ended
    assert changed[waiting.name].state is JobState.RUNNING
    until_it_prints(service, waiting.name, "waiting")
    service.cancel(waiting.name)
    ended(service, waiting.name)


def test_no_line_of_a_log_is_lost_or_repeated(
    service: DockerJobService, request_for: Callable[..., JobRequest]
) -> None:
    request = request_for("talk", 20_000)
    service.submit(request)
    lines: list[str] = []
    cursor = ""
    while not service.describe(request.name).state.ended:
        chunk = service.logs(request.name, cursor, 777)
        lines += chunk.lines
        cursor = chunk.cursor
    another = DockerJobService(service._address)  # as after a restart of the triggerer
    more = True
    while more:
        chunk = another.logs(request.name, cursor, 5000)
        lines += chunk.lines
        cursor, more = chunk.cursor, chunk.more
    assert lines == [*(f"line {number}" for number in range(20_000)), "no end"]


def test_a_secret_reaches_the_step_and_is_in_no_request(
    service: DockerJobService,
    store: ArtifactStore,
    podman: Podman,
    request_for: Callable[..., JobRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OUR_TOKEN", "hunter2")
    request = request_for("secret", secrets={"TOKEN": "env:OUR_TOKEN"})
    service.submit(request)
    assert ended(service, request.name).state is JobState.SUCCEEDED
    assert result(store, request).values == {"return_value": ["2retnuh", ["TOKEN"]]}
    assert "hunter2" not in podman.run("inspect", request.name)
    assert b"hunter2" not in store.get(request.spec_uri)


def test_an_image_that_is_not_there_is_an_end_of_its_own_kind(
    service: DockerJobService, registry: str, request_for: Callable[..., JobRequest]
) -> None:
    with pytest.raises(JobRefusedError, match="cannot pull") as caught:
        service.submit(request_for("answer", image=f"{registry}/jobs@sha256:{'0' * 64}"))
    assert caught.value.kind is EndKind.IMAGE


def test_an_engine_that_is_away_is_said_with_what_to_start() -> None:
    with pytest.raises(TransientServiceError, match="podman system service"):
        DockerJobService("unix:///nowhere.sock").describe("job")


def test_an_ended_container_is_kept_as_a_record(
    service: DockerJobService, podman: Podman, request_for: Callable[..., JobRequest]
) -> None:
    request = request_for("answer")
    service.submit(request)
    ended(service, request.name)
    labels = json.loads(podman.run("inspect", request.name))[0]["Config"]["Labels"]
    assert labels["airflow-stepops.job"] == request.name
