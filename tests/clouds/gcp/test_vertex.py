"""The step operator ``vertex`` on an emulated Vertex AI that really runs the images."""

from __future__ import annotations

import copy
import dataclasses
import json
import time

import grpc
import pytest
from google.cloud.aiplatform_v1 import JobServiceClient
from google.cloud.aiplatform_v1.services.job_service.transports import JobServiceGrpcTransport

from airflow_stepops.clouds.gcp import service as service_module
from airflow_stepops.clouds.gcp.logs import Pace
from airflow_stepops.errors import EndKind, JobNotFoundError, JobRefusedError, TransientServiceError
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.protocol import JobState
from tests.clouds.gcp.emulated import JOB, PROJECT, Answer, Call, EmulatedGcp, Reset, error
from tests.clouds.gcp.ground import OnVertex, submit_thrice_at_once
from tests.clouds.gcp.vertex import REGION, State, Vertex
from tests.clouds.ground import all_lines, ended, running
from tests.clouds.test_job_service import (  # noqa: F401 - they run here with the ground of Vertex AI
    test_a_job_is_found_by_its_name,
    test_a_job_runs_the_image_and_leaves_its_result,
    test_a_job_without_a_log_has_no_lines,
    test_a_step_that_raises_shows_its_traceback,
    test_an_unknown_job_is_said_to_be_unknown,
    test_another_process_goes_on_at_the_cursor,
    test_no_line_is_lost_or_repeated_while_the_job_prints,
    test_resources_are_accepted,
    test_submitting_again_returns_the_job_that_is_there,
    test_two_launchers_at_once_launch_one_job,
    test_what_runs_and_what_has_ended_since_is_seen,
)


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloud Logging has no quota here, and lists show what there is, but where a test says so."""
    pace = Pace(seconds=0.0)
    monkeypatch.setattr(service_module, "_pace", lambda project: pace)
    monkeypatch.setattr(service_module, "LOOK_AGAIN_AFTER", (0.05,))


def test_a_failed_job_has_exit_code_kind_and_reason(ground: OnVertex) -> None:
    service = ground.connect()
    status = ended(service, service.submit(ground.request("leave", 7)).id)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.USER_CODE, 7)
    said = "The replica workerpool0-0 exited with a non-zero status of 7. Termination reason: Error."
    assert status.reason == said


def test_a_killed_container_is_the_machine_s_failure(ground: OnVertex) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("wait")).id
    running(service, job_id)
    ground.kill(job_id)
    status = ended(service, job_id)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.INFRASTRUCTURE, -9)


def test_a_cancelled_job_is_asked_to_stop_and_leaves_a_result(ground: OnVertex) -> None:
    service, request = ground.connect(), ground.request("wait")
    job_id = service.submit(request).id
    running(service, job_id)
    service.cancel(job_id)
    service.cancel(job_id)
    status = ended(service, job_id)
    assert (status.state, status.kind) == (JobState.STOPPED, EndKind.CANCELLED)
    assert ground.result(request).status == "stopped"
    service.cancel(job_id)


def test_a_job_that_is_cancelled_before_it_runs_never_runs(ground: OnVertex) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("wait")).id
    service.cancel(job_id)
    assert ended(service, job_id).kind is EndKind.CANCELLED
    assert service.logs(job_id).lines == []


def test_a_job_that_runs_too_long_is_stopped_by_the_service(ground: OnVertex) -> None:
    service = ground.connect()
    assert service.enforces_timeout
    status = ended(service, service.submit(ground.request("wait", timeout=2)).id)
    assert (status.state, status.kind) == (JobState.FAILED, EndKind.TIMEOUT)
    assert "scheduling.timeout" in status.reason


def test_an_image_that_is_not_there_is_no_failure_of_the_step(ground: OnVertex, registry: str) -> None:
    service = ground.connect()
    request = ground.request("add", 1, 1, image=f"{registry}/clouds/nothing@sha256:{'0' * 64}")
    assert ended(service, service.submit(request).id).kind is EndKind.IMAGE


@pytest.mark.parametrize(
    ("state", "code", "message", "kind"),
    [
        (State.JOB_STATE_FAILED, 8, "Resources are insufficient in region: europe-west4.", EndKind.CAPACITY),
        (State.JOB_STATE_FAILED, 10, "The replica workerpool0-0 was preempted.", EndKind.PREEMPTED),
        (State.JOB_STATE_FAILED, 7, "Permission denied on artifacts of the repository.", EndKind.PERMISSION),
        (State.JOB_STATE_FAILED, 13, "Internal error occurred.", EndKind.INFRASTRUCTURE),
        (State.JOB_STATE_EXPIRED, 0, "", EndKind.CAPACITY),
    ],
)
def test_what_the_service_itself_ends_has_its_own_kind(
    ground: OnVertex, emulated: Vertex, state: State, code: int, message: str, kind: EndKind
) -> None:
    service, request = ground.connect(), ground.request("add", 1, 1)
    emulated.ends["add"] = (state, code, message)
    assert ended(service, service.submit(request).id).kind is kind


def test_a_service_account_that_nobody_may_be_is_refused_and_no_job_is_made(ground: OnVertex, emulated: Vertex) -> None:
    other = ground.having(service_account=f"nobody@{PROJECT}.iam.gserviceaccount.com")
    request = other.request("add", 1, 1)
    with pytest.raises(JobRefusedError, match="act as service account: nobody@") as caught:
        other.connect().submit(request)
    assert caught.value.kind is EndKind.PERMISSION
    assert emulated.labelled(request.name) == []


def test_a_permission_that_is_missing_is_named(ground: OnVertex, gcp: EmulatedGcp) -> None:
    denied = "Permission 'aiplatform.customJobs.create' denied on resource"
    failing = gcp.fail("aiplatform", "customJobs$", 403, "PERMISSION_DENIED", denied, method="POST")
    with pytest.raises(JobRefusedError, match=r"aiplatform\.customJobs\.create") as caught:
        ground.connect().submit(ground.request("add", 1, 1))
    failing.times = 0
    assert caught.value.kind is EndKind.PERMISSION


def test_what_the_service_would_refuse_is_not_sent(ground: OnVertex, emulated: Vertex) -> None:
    wrong = ground.having(environment={"not-a-name": "x"})
    before = len(emulated.sent)
    with pytest.raises(JobRefusedError, match="not-a-name"):
        wrong.connect().submit(wrong.request("add", 1, 1))
    assert len(emulated.sent) == before


def test_the_answer_to_create_is_lost_and_there_is_one_job(ground: OnVertex, emulated: Vertex) -> None:
    service, request = ground.connect(), ground.request("add", 40, 2)
    emulated.lost = 1
    status = patiently(service.submit)(request)
    assert [job.id for job in emulated.labelled(request.name)] == [status.id]
    assert ended(service, status.id).state is JobState.SUCCEEDED
    assert ground.value(request) == 42


def test_launchers_that_have_all_seen_no_job_keep_the_same_one_and_stop_the_others(
    ground: OnVertex, emulated: Vertex
) -> None:
    request = ground.request("wait")
    ids = submit_thrice_at_once(ground, emulated, request)
    (kept,) = set(ids)
    service = ground.connect()
    made = emulated.labelled(request.name)
    assert (len(ids), len(made)) == (3, 3)
    for job in made:
        if job.id != kept:
            assert ended(service, job.id).kind is EndKind.CANCELLED
    running(service, kept)
    found = service.find(request.name)
    assert found is not None
    assert found.id == kept
    service.cancel(kept)
    ended(service, kept)


@pytest.mark.parametrize("broken", ["before", "after", "unavailable", "throttled"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_whichever_call_breaks_there_is_exactly_one_job(
    ground: OnVertex, gcp: EmulatedGcp, emulated: Vertex, monkeypatch: pytest.MonkeyPatch, number: int, broken: str
) -> None:
    calls: list[str] = []

    def breaking(call: Call) -> Answer:
        calls.append(call.method)
        if len(calls) == number:
            if broken == "unavailable":
                return error(503, "UNAVAILABLE", "The service is currently unavailable.")
            if broken == "throttled":
                return error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", details=[])
            if broken == "after":
                emulated(call)
            raise Reset
        return emulated(call)

    monkeypatch.setitem(gcp.apis, "aiplatform", breaking)
    service, request = ground.connect(), ground.request("add", 40, 2)
    status = patiently(service.submit)(request)
    assert len(calls) >= 3
    (job,) = emulated.labelled(request.name)
    assert job.id == status.id
    assert ended(service, status.id).state is JobState.SUCCEEDED


@pytest.mark.parametrize(("status", "code"), [(429, "RESOURCE_EXHAUSTED"), (503, "UNAVAILABLE")])
def test_a_throttled_or_broken_call_may_pass_and_harms_no_job(
    ground: OnVertex, gcp: EmulatedGcp, status: int, code: str
) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("add", 1, 1)).id
    failing = gcp.fail("aiplatform", f"customJobs/{job_id}$", status, code)
    with pytest.raises(TransientServiceError):
        service.describe(job_id)
    failing.times = 0
    assert ended(service, job_id).state is JobState.SUCCEEDED


def test_google_s_own_client_sees_the_job_as_we_do(ground: OnVertex, emulated: Vertex) -> None:
    service, request = ground.connect(), ground.request("wait")
    job_id = service.submit(request).id
    running(service, job_id)
    with emulated.over_grpc() as address, grpc.insecure_channel(address) as channel:
        client = JobServiceClient(transport=JobServiceGrpcTransport(channel=channel))
        parent = f"projects/{PROJECT}/locations/{REGION}"
        (job,) = client.list_custom_jobs(request={"parent": parent, "filter": f'labels.stepops_job="{request.name}"'})
        assert job.name.rpartition("/")[2] == job_id
        assert job.state is State.JOB_STATE_RUNNING
        assert job.job_spec.worker_pool_specs[0].container_spec.image_uri == request.image
        assert job.job_spec.service_account == JOB
        client.cancel_custom_job(name=job.name)
        status = ended(service, job_id)
        theirs = client.get_custom_job(name=job.name)
    assert (theirs.state, status.state) == (State.JOB_STATE_CANCELLED, JobState.STOPPED)
    assert status.created_at == pytest.approx(theirs.create_time.timestamp(), abs=1e-3)
    assert status.ended_at == pytest.approx(theirs.end_time.timestamp(), abs=1e-3)
    assert status.metadata["machine_type"] == theirs.job_spec.worker_pool_specs[0].machine_spec.machine_type
    assert status.reason == theirs.error.message


def test_of_several_machines_the_first_leaves_the_result_and_the_lines_of_the_others_name_them(
    ground: OnVertex,
) -> None:
    two = ground.having(replica_count=2)
    service, request = two.connect(), two.request("machines")
    job_id = service.submit(request).id
    assert ended(service, job_id).state is JobState.SUCCEEDED
    assert two.value(request) == [0, 2, "training-workerpool0-ab-0", "2"]
    assert sorted(all_lines(service, job_id)) == ["[workerpool1-0] machine 1 of 2", "machine 0 of 2"]


def test_a_job_is_its_service_account_and_gets_its_variables_as_they_are(ground: OnVertex, gcp: EmulatedGcp) -> None:
    price = "$(CLOUD_ML_JOB_ID) $5 $$(CLOUD_ML_JOB_ID) a$$b $$$ $"
    given = ground.having(environment={"PRICE": price})
    service, request = given.connect(), given.request("variables")
    job_id = service.submit(request).id
    ended(service, job_id)
    variables = given.value(request)
    assert variables["PRICE"] == price
    assert variables["AIP_MODEL_DIR"] == f"{request.spec_uri.rpartition('/')[0]}/vertex/model/"
    assert gcp.grants[-1] in ("metadata", "key")
    assert any(call.caller == JOB and call.service == "storage" for call in gcp.calls)


def test_of_a_job_that_ended_between_two_sweeps_the_second_says_that_it_has_to_be_described(
    ground: OnVertex, gcp: EmulatedGcp
) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("wait")).id
    running(service, job_id)
    later = time.time() + 3600
    assert service.changed(later)[job_id].state is JobState.RUNNING
    service.cancel(job_id)
    ended(ground.connect(), job_id)
    before = gcp.count("aiplatform")
    changed = service.changed(later)
    assert job_id in changed
    assert changed[job_id] is None
    assert gcp.count("aiplatform") == before + 2, "two lists, and no call for a single job"
    assert service.describe(job_id).state is JobState.STOPPED
    assert job_id not in service.changed(later)


def test_more_jobs_than_a_page_are_all_seen(ground: OnVertex, emulated: Vertex) -> None:
    service = ground.connect()
    made = emulated.jobs[service.submit(ground.request("add", 1, 1)).id]
    ended(service, made.id)
    others = {f"{number}": dataclasses.replace(made, shown=copy.deepcopy(made.shown)) for number in range(1, 251)}
    for number, job in others.items():
        job.shown.name = f"{made.shown.name.rpartition('/')[0]}/{number}"
    emulated.jobs |= others
    assert {made.id, *others} <= set(service.changed(time.time() - 60))
    for number in others:
        del emulated.jobs[number]


def test_jobs_of_others_are_not_looked_at(ground: OnVertex, emulated: Vertex) -> None:
    service = ground.connect()
    job = emulated.jobs[service.submit(ground.request("add", 1, 1)).id]
    ended(service, job.id)
    del job.shown.labels["stepops_job"]
    assert job.id not in ground.connect().changed(0.0)


def test_no_secret_is_in_what_a_job_is_given(ground: OnVertex, gcp: EmulatedGcp, emulated: Vertex) -> None:
    service, request = ground.connect(), ground.request("add", 1, 1)
    ended(service, service.submit(request).id)
    said = json.dumps(emulated.sent) + json.dumps(ground.component.document())
    said += ground.store.get(request.spec_uri).decode()
    assert request.name in said
    assert "PRIVATE KEY" not in said
    assert [token for token in gcp.tokens if token in said] == []
    with pytest.raises(JobRefusedError, match="Secret Manager"):
        service.submit(ground.request("secret", secrets={"TOKEN": "env:OUR_TOKEN"}))


def test_links_lead_to_the_job_and_to_its_log(ground: OnVertex) -> None:
    service = ground.connect()
    assert service.console_url("77") == (
        f"https://console.cloud.google.com/agent-platform/locations/{REGION}/training/77?project={PROJECT}"
    )
    assert service.logs_url("77") == (
        "https://console.cloud.google.com/logs/query;query=resource.type%3D%22ml_job%22%0A"
        f"resource.labels.job_id%3D%2277%22?project={PROJECT}"
    )


def test_a_name_that_is_no_number_is_asked_about_nowhere(ground: OnVertex, gcp: EmulatedGcp) -> None:
    before = gcp.count("aiplatform")
    with pytest.raises(JobNotFoundError):
        ground.connect().describe("churn-train-1")
    ground.connect().cancel("churn-train-1")
    assert gcp.count("aiplatform") == before
