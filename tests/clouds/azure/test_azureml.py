"""The step operator ``azureml`` on an emulated Azure ML that really runs the images."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest

from airflow_stepops.clouds.azure import service as service_module
from airflow_stepops.clouds.azure.step_operator import AzureMLStepOperator
from airflow_stepops.errors import EndKind, JobNotFoundError, JobRefusedError, TransientServiceError
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.protocol import JobState
from tests.clouds.azure.azureml import CLUSTER, RESOURCE, AzureML
from tests.clouds.azure.emulated import IDENTITY, SECRET, EmulatedAzure
from tests.clouds.azure.ground import OnAzureML
from tests.clouds.gcp.emulated import Reset
from tests.clouds.ground import all_lines, ended, running, wait_for
from tests.clouds.test_job_service import (  # noqa: F401 - they run here with the ground of Azure ML
    test_a_job_is_found_by_its_name,
    test_a_job_runs_the_image_and_leaves_its_result,
    test_a_step_that_raises_shows_its_traceback,
    test_an_unknown_job_is_said_to_be_unknown,
    test_resources_are_accepted,
    test_submitting_again_returns_the_job_that_is_there,
    test_two_launchers_at_once_launch_one_job,
    test_what_runs_and_what_has_ended_since_is_seen,
)
from tests.engines import run


def test_a_failed_job_has_exit_code_kind_and_reason(ground: OnAzureML) -> None:
    service = ground.connect()
    status = ended(service, service.submit(ground.request("leave", 7)).id)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.USER_CODE, 7)
    assert status.reason == "Execution failed. User process 'python' exited with status code 7."


def test_a_killed_container_is_the_machine_s_failure(ground: OnAzureML) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("wait")).id
    running(service, job_id)
    ground.kill(job_id)
    status = ended(service, job_id)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.INFRASTRUCTURE, -9)


def test_a_cancelled_job_is_asked_to_stop_and_leaves_a_result(ground: OnAzureML) -> None:
    service, request = ground.connect(), ground.request("wait")
    job_id = service.submit(request).id
    running(service, job_id)
    asked = time.monotonic()
    service.cancel(job_id)
    service.cancel(job_id)
    assert time.monotonic() - asked < 10  # it does not wait for the end
    status = ended(service, job_id)
    assert (status.state, status.kind) == (JobState.STOPPED, EndKind.CANCELLED)
    assert ground.result(request).status == "stopped"
    service.cancel(job_id)


def test_a_job_that_is_cancelled_before_it_runs_never_runs(ground: OnAzureML) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("wait")).id
    service.cancel(job_id)
    assert ended(service, job_id).kind is EndKind.CANCELLED
    assert service.logs(job_id).lines == []


def test_a_job_that_runs_too_long_is_stopped_by_the_service(ground: OnAzureML) -> None:
    service = ground.connect()
    assert service.enforces_timeout
    status = ended(service, service.submit(ground.request("wait", timeout=2)).id)
    assert (status.state, status.kind) == (JobState.FAILED, EndKind.TIMEOUT)
    assert "limits.timeout" in status.reason


def test_an_image_that_is_not_there_is_no_failure_of_the_step(ground: OnAzureML, registry: str) -> None:
    service = ground.connect()
    request = ground.request("add", 1, 1, image=f"{registry}/clouds/nothing@sha256:{'0' * 64}")
    assert ended(service, service.submit(request).id).kind is EndKind.IMAGE


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "UserError", "message": "The specified subscription has a total vCPU quota of 0"}, EndKind.CAPACITY),
        ({"code": "UserError", "message": "PreemptionError: Nodes of this job got pre-empted."}, EndKind.PREEMPTED),
        ({"code": "UserError", "message": "The identity does not have permission to pull"}, EndKind.PERMISSION),
        ({"code": "ServiceError", "message": "InternalServerError"}, EndKind.INFRASTRUCTURE),
    ],
)
def test_what_the_service_itself_ends_has_its_own_kind(
    ground: OnAzureML, workspace: AzureML, error: dict[str, Any], kind: EndKind
) -> None:
    service, request = ground.connect(), ground.request("add", 1, 1)
    workspace.compute.ends["add"] = ("Failed", error)
    status = ended(service, service.submit(request).id)
    assert (status.kind, status.reason) == (kind, error["message"])


def test_a_job_that_is_not_heard_of_goes_on_and_is_given_up_when_that_lasts(
    ground: OnAzureML, workspace: AzureML, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("wait")).id
    running(service, job_id)
    workspace.silent.add(job_id)
    silent = service.describe(job_id)
    assert (silent.state, silent.detail) == (JobState.RUNNING, "not responding")
    workspace.silent.remove(job_id)
    assert service.describe(job_id).detail == "running"
    workspace.silent.add(job_id)
    assert service.changed(time.time())[job_id].state is JobState.RUNNING
    monkeypatch.setattr(service_module, "_SILENCE", 0.0)
    given_up = service.describe(job_id)
    assert (given_up.state, given_up.kind) == (JobState.FAILED, EndKind.INFRASTRUCTURE)
    assert "NotResponding" in given_up.reason
    workspace.silent.remove(job_id)
    assert ended(service, job_id).state is JobState.STOPPED  # nothing is left that costs money


def test_a_cluster_that_is_not_there_is_refused_and_no_job_is_made(ground: OnAzureML, workspace: AzureML) -> None:
    other = ground.having(compute_name="gpu-cluster")
    request = other.request("add", 1, 1)
    with pytest.raises(JobRefusedError, match="gpu-cluster not found"):
        other.connect().submit(request)
    assert request.name not in workspace.jobs


def test_a_cluster_of_the_workspace_runs_the_job(ground: OnAzureML) -> None:
    cluster = ground.having(compute_name=CLUSTER)
    service, request = cluster.connect(), cluster.request("add", 40, 2)
    status = ended(service, service.submit(request).id)
    assert cluster.value(request) == 42
    assert status.metadata["compute"] == CLUSTER


def test_a_permission_that_is_missing_is_named(ground: OnAzureML, azure: EmulatedAzure) -> None:
    action = "Microsoft.MachineLearningServices/workspaces/jobs/write"
    said = f"The client does not have authorization to perform action '{action}' over scope '{RESOURCE}'"
    failing = azure.fail("arm", "/jobs/", 403, "AuthorizationFailed", said, method="PUT")
    with pytest.raises(JobRefusedError, match=f"Allow {action}") as caught:
        ground.connect().submit(ground.request("add", 1, 1))
    failing.times = 0
    assert caught.value.kind is EndKind.PERMISSION


def test_what_the_service_would_not_know_is_not_sent(ground: OnAzureML, workspace: AzureML) -> None:
    wrong = ground.having(environment={"not-a-name": "x"})
    before = len(workspace.sent)
    with pytest.raises(JobRefusedError, match="not-a-name"):
        wrong.connect().submit(wrong.request("add", 1, 1))
    assert len(workspace.sent) == before


def test_the_answer_to_create_is_lost_and_there_is_one_job(ground: OnAzureML, workspace: AzureML) -> None:
    service, request = ground.connect(), ground.request("add", 40, 2)
    workspace.lost = 1
    status = patiently(service.submit)(request)
    assert status.id == request.name
    assert ended(service, status.id).state is JobState.SUCCEEDED
    assert ground.value(request) == 42


def test_launchers_that_have_all_seen_no_job_make_one_also_when_they_ask_for_different_ones(
    ground: OnAzureML, workspace: AzureML
) -> None:
    request = ground.request("wait")
    ids: list[str] = []

    def launch(seconds: int) -> None:
        ids.append(ground.connect().submit(dataclasses.replace(request, timeout=seconds)).id)

    workspace.together = threading.Barrier(3)
    threads = [threading.Thread(target=launch, args=(seconds,)) for seconds in (600, 600, 700)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    workspace.together = None
    assert ids == [request.name] * 3
    service = ground.connect()
    running(service, request.name)
    service.cancel(request.name)
    ended(service, request.name)


def test_an_image_becomes_an_environment_once(ground: OnAzureML, azure: EmulatedAzure, workspace: AzureML) -> None:
    service = ground.connect()
    for _ in range(2):
        ended(service, service.submit(ground.request("add", 1, 1)).id)
    made = [
        place for place, one in workspace.environments.items() if one["properties"]["image"] == ground.image.reference
    ]
    assert len(made) == 1
    assert made[0].startswith(f"environments/stepops/versions/{ground.image.reference.partition('@sha256:')[2]}")
    assert azure.count("arm", "PUT", made[0]) == 1


@pytest.mark.parametrize(("status", "code"), [(429, "TooManyRequests"), (503, "ServiceUnavailable")])
def test_a_throttled_or_broken_call_may_pass_and_harms_no_job(
    ground: OnAzureML, azure: EmulatedAzure, status: int, code: str
) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("add", 1, 1)).id
    for name, path in (("arm", f"/jobs/{job_id}$"), ("runs", f"/runs/{job_id}/details$")):
        wait_for(lambda: service.describe(job_id).started_at, "the start")
        failing = azure.fail(name, path, status, code)
        with pytest.raises(TransientServiceError):
            service.describe(job_id)
        failing.times = 0
    assert ended(service, job_id).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("service_name", "method", "path"),
    [
        ("arm", "GET", "/jobs/"),
        ("arm", "GET", "/environments/"),
        ("arm", "PUT", "/environments/"),
        ("arm", "PUT", "/jobs/"),
        ("arm", "GET", "/workspaces/team$"),
        ("discovery", "GET", ""),
        ("runs", "GET", "/details$"),
    ],
)
def test_whatever_breaks_on_the_way_there_is_one_job_and_its_end_is_seen(
    ground: OnAzureML, azure: EmulatedAzure, workspace: AzureML, service_name: str, method: str, path: str
) -> None:
    def reset() -> Any:
        raise Reset

    workspace.environments.clear()
    request = ground.request("add", 40, 2)
    broken = azure.answer_with(service_name, path, reset, method=method, times=1)
    service = ground.connect()
    job_id = patiently(service.submit)(request).id
    wait_for(lambda: patiently(service.describe)(job_id).state.ended, "the end")
    assert broken.times == 0
    assert service.describe(job_id).state is JobState.SUCCEEDED
    assert [name for name in workspace.jobs if name == request.name] == [job_id]
    assert ground.value(request) == 42


def test_of_several_machines_the_first_leaves_the_result_and_the_lines_of_the_others_name_them(
    ground: OnAzureML,
) -> None:
    two = ground.having(instance_count=2)
    service, request = two.connect(), two.request("machines")
    job_id = service.submit(request).id
    assert ended(service, job_id).state is JobState.SUCCEEDED
    assert two.value(request) == [0, 2, "127.0.0.4", "2"]
    assert sorted(all_lines(service, job_id)) == ["[process_1] machine 1 of 2", "machine 0 of 2"]


def test_more_jobs_than_a_page_are_all_seen(ground: OnAzureML, workspace: AzureML) -> None:
    service = ground.connect()
    made = workspace.jobs[service.submit(ground.request("add", 1, 1)).id]
    ended(service, made.name)
    others = {f"other-{number}": copy.copy(made) for number in range(60)}
    for name, job in others.items():
        job.name = name
    workspace.jobs.update(others)
    assert {made.name, *others} <= set(service.changed(time.time() - 60))
    for name in others:
        del workspace.jobs[name]


def test_a_job_that_is_far_back_in_the_list_has_to_be_described(
    ground: OnAzureML, workspace: AzureML, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("wait")).id
    running(service, job_id)
    assert service.changed(time.time())[job_id].state is JobState.RUNNING
    monkeypatch.setattr(service_module, "_MOST_PAGES", 1)
    made = workspace.jobs[job_id]
    others = {f"newer-{number}": copy.copy(made) for number in range(30)}
    for name, job in others.items():
        job.name, job.created, job.status = name, job.created + timedelta(seconds=1), "Completed"
    workspace.jobs.update(others)
    changed = service.changed(time.time())
    assert job_id in changed
    assert changed[job_id] is None
    assert service.describe(job_id).state is JobState.RUNNING
    service.cancel(job_id)
    ended(ground.connect(), job_id)
    assert job_id in service.changed(time.time()), "what was described as running is told again"
    assert job_id not in service.changed(time.time())
    for name in others:
        del workspace.jobs[name]


def test_jobs_of_others_are_not_looked_at(ground: OnAzureML, workspace: AzureML) -> None:
    service = ground.connect()
    job = workspace.jobs[service.submit(ground.request("add", 1, 1)).id]
    ended(service, job.name)
    del job.sent["tags"]["stepops_job"]
    assert job.name not in ground.connect().changed(0.0)


def test_no_secret_is_in_what_a_job_is_given(ground: OnAzureML, azure: EmulatedAzure, workspace: AzureML) -> None:
    service, request = ground.connect(), ground.request("add", 1, 1)
    ended(service, service.submit(request).id)
    said = json.dumps(workspace.sent) + json.dumps(ground.component.document())
    said += ground.store.get(request.spec_uri).decode()
    assert request.name in said
    assert SECRET not in said
    assert [token for token in azure.tokens if token in said] == []
    with pytest.raises(JobRefusedError, match="Key Vault"):
        service.submit(ground.request("secret", secrets={"TOKEN": "env:OUR_TOKEN"}))


def test_a_job_gets_its_variables_and_those_of_its_machine_s_identity(ground: OnAzureML) -> None:
    given = ground.having(environment={"PRICE": "$5 ${{inputs.x}} $(HOME)"})
    service, request = given.connect(), given.request("variables")
    ended(service, service.submit(request).id)
    variables = given.value(request)
    assert variables["PRICE"] == "$5 ${{inputs.x}} $(HOME)"
    assert variables["AZUREML_RUN_ID"] == request.name
    assert variables["PWD"] == "/opt/stepops/code"
    assert variables["MSI_ENDPOINT"]


def test_who_watches_a_job_loads_no_sdk_of_azure_ml(ground: OnAzureML) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("count", 3)).id
    ended(service, job_id)
    code = f"""
import json, sys
from airflow_stepops.stacks.components import StepOperatorComponent
from airflow_stepops.stacks.flavors import component_from_document
document = json.loads({json.dumps(ground.component.document())!r})
service = component_from_document(StepOperatorComponent, document).connect()
assert service.describe({job_id!r}).exit_code == 0
assert service.logs({job_id!r}).lines[0] == "line 0"
loaded = ("azure.ai", "azure.mgmt", "msrest", "azure.storage", "marshmallow", "pandas", "numpy")
print(json.dumps([name for name in loaded if name in sys.modules]))
"""
    assert json.loads(run(sys.executable, "-c", code).splitlines()[-1]) == []


def test_links_lead_to_the_job_and_to_its_log(ground: OnAzureML) -> None:
    service = ground.connect()
    assert service.console_url("churn-1") == f"https://ml.azure.com/runs/churn-1?wsid={RESOURCE}"
    assert service.logs_url("churn-1") == f"https://ml.azure.com/runs/churn-1?wsid={RESOURCE}#outputsAndLogs"


def test_a_name_that_azure_would_not_take_is_asked_about_nowhere(ground: OnAzureML, azure: EmulatedAzure) -> None:
    before = azure.count("arm")
    for name in ("../workspaces", "a b", "", f"a{uuid.uuid4()}" * 20):
        with pytest.raises(JobNotFoundError):
            ground.connect().describe(name)
        ground.connect().cancel(name)
    assert azure.count("arm") == before


def test_a_workspace_that_is_not_there_is_said(ground: OnAzureML) -> None:
    other = ground.having(workspace_name="nobody-s")
    with pytest.raises(JobRefusedError, match="nobody-s"):
        other.connect().submit(other.request("add", 1, 1))


def test_a_job_reaches_its_artifacts_as_the_identity_of_its_compute(ground: OnAzureML, azure: EmulatedAzure) -> None:
    before = len(azure.tokens)
    service, request = ground.connect(), ground.request("add", 40, 2)
    ended(service, service.submit(request).id)
    assert ground.value(request) == 42
    new = list(azure.tokens.values())[before:]
    assert (IDENTITY, "https://storage.azure.com") in [(client, resource) for client, resource, _ in new]


def test_workspaces_have_watchers_of_their_own(ground: OnAzureML) -> None:
    keys = {
        AzureMLStepOperator(resource_group=group, workspace_name=name).account_key()
        for group, name in (("ml", "team"), ("ml", "other"), ("gpu", "team"))
    }
    assert len(keys) == 3
