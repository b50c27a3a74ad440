"""Requests of Azure ML's command jobs, held to Microsoft's own models."""

from __future__ import annotations

from typing import Any

import pytest
from azure.ai.ml._restclient.arm_ml_service import models
from azure.ai.ml.entities import Job
from azure.mgmt.machinelearningservices import models as older
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_stepops.clouds.azure.environments import environment_version, version_of
from airflow_stepops.clouds.azure.limits import check_request
from airflow_stepops.clouds.azure.machines import MACHINES
from airflow_stepops.clouds.azure.request import create_request
from airflow_stepops.clouds.azure.step_operator import AzureMLStepOperator
from airflow_stepops.errors import JobRefusedError
from airflow_stepops.jobs.protocol import JobRequest
from airflow_stepops.runtime.spec import Attempt
from tests.clouds.azure.models import check_document, fields

IMAGE = f"team.azurecr.io/steps@sha256:{'a' * 64}"
SPEC_URI = "az://steps/team/runs/churn/manual/train/-1/attempt-1/spec.json"
WORKSPACE = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/ml"
    "/providers/Microsoft.MachineLearningServices/workspaces/team"
)
ENVIRONMENT = f"{WORKSPACE}/environments/stepops/versions/{version_of(IMAGE)}"
PLACE: dict[str, Any] = {"resource_group": "ml", "workspace_name": "team"}
IDENTITY = "11111111-2222-3333-4444-555555555555"


def request(**facts: Any) -> JobRequest:
    usual: dict[str, Any] = {
        "name": "churn-train-1-0123456789abcdef",
        "attempt": Attempt("churn", "manual__2026-01-01T00:00:00+00:00", "train", -1, 1, "instance", "ti-1"),
        "image": IMAGE,
        "spec_uri": SPEC_URI,
        "artifact_root": "az://steps/team",
    }
    return JobRequest(**{**usual, **facts})


def made(asked: JobRequest | None = None, **given: Any) -> dict[str, Any]:
    """Return the CommandJob for a component with these settings, checked as before the call, and by Azure's models."""
    component = AzureMLStepOperator(**{**PLACE, **given})
    document = create_request(asked or request(), component, WORKSPACE, ENVIRONMENT)
    check_request(document)
    check_document(document, models.JobBase, older.JobBase)
    properties: dict[str, Any] = document["properties"]
    return properties


def test_a_job_runs_the_runtime_in_the_image_and_is_told_its_spec_alone() -> None:
    job = made()
    assert job["environmentId"] == ENVIRONMENT
    assert job["command"].endswith("exec python -m airflow_stepops.runtime")
    assert job["environmentVariables"] == {"STEPOPS_SPEC": SPEC_URI}
    assert job["identity"] == {"identityType": "Managed"}
    assert job["tags"]["stepops_job"] == "churn-train-1-0123456789abcdef"
    assert job["tags"]["airflow_run_id"] == "manual__2026-01-01T00:00:00+00:00"
    assert job["experimentName"] == "churn"
    assert "codeId" not in job
    assert "distribution" not in job


def test_azure_ai_ml_reads_the_request_as_its_own_command_job() -> None:
    document = {
        "id": f"{WORKSPACE}/jobs/x",
        "name": "x",
        "properties": made(
            instance_type="Standard_NC4as_T4_v3",
            instance_count=2,
            tier="spot",
            priority="high",
            shm_size="8g",
            docker_args="--ipc=host",
            identity=IDENTITY,
            experiment_name="churn_2026",
            environment={"A": "b"},
            tags={"team": "ml"},
            properties={"cost": "42"},
            timeout=600,
        ),
    }
    job: Any = Job._from_rest_object(models.JobBase(document))
    assert job.type == "command"
    assert job.experiment_name == "churn_2026"
    assert job.limits.timeout == 600
    assert (job.resources.instance_type, job.resources.instance_count) == ("Standard_NC4as_T4_v3", 2)
    assert (job.resources.shm_size, job.resources.docker_args) == ("8g", "--ipc=host")
    assert (job.queue_settings.job_tier, job.queue_settings.priority) == ("spot", "high")
    assert job.identity.client_id == IDENTITY
    assert (job.distribution.type, job.distribution.process_count_per_instance) == ("pytorch", 1)
    assert job.environment_variables == {"A": "b", "AZURE_CLIENT_ID": IDENTITY, "STEPOPS_SPEC": SPEC_URI}
    assert job.tags["team"] == "ml"
    assert job.properties["cost"] == "42"


def test_the_step_s_timeout_goes_before_the_usual_one() -> None:
    assert made(request(timeout=600))["limits"] == {"jobLimitsType": "Command", "timeout": "PT600S"}
    assert made(timeout=7200)["limits"]["timeout"] == "PT7200S"


def test_a_cluster_runs_the_job_on_its_own_machines_and_serverless_compute_on_those_that_the_step_needs() -> None:
    cluster = made(request(resources={"gpus": 8}), compute_name="gpu-cluster", priority="low")
    assert cluster["computeId"] == f"{WORKSPACE}/computes/gpu-cluster"
    assert cluster["resources"] == {"instanceCount": 1}
    assert cluster["queueSettings"] == {"priority": 1}
    serverless = made(request(resources={"cpus": 4, "memory": "20GiB"}))
    assert "computeId" not in serverless
    assert serverless["resources"] == {"instanceCount": 1, "instanceType": "Standard_E4s_v3"}
    assert serverless["queueSettings"] == {"jobTier": "Standard"}


@pytest.mark.parametrize(
    ("resources", "machine"),
    [
        ({}, "Standard_D2s_v3"),
        ({"gpus": 1}, "Standard_NC4as_T4_v3"),
        ({"gpus": 1, "gpu_type": "T4", "memory": "100GiB"}, "Standard_NC16as_T4_v3"),
        ({"gpus": 1, "gpu_type": "a100"}, "Standard_NC24ads_A100_v4"),
        ({"gpus": 8, "gpu_type": "a100-80gb"}, "Standard_ND96amsr_A100_v4"),
        ({"gpus": 2, "gpu_type": "h100"}, "Standard_NC80adis_H100_v5"),
        ({"cpus": 0.5}, "Standard_D2s_v3"),
    ],
)
def test_a_step_gets_the_cheapest_usual_machine_that_has_its_resources(resources: dict[str, Any], machine: str) -> None:
    assert made(request(resources=resources))["resources"]["instanceType"] == machine


def test_what_no_machine_has_is_said() -> None:
    with pytest.raises(JobRefusedError, match=r"no usual machine of Azure ML has gpus=1, gpu_type=k80.*instance_type"):
        made(request(resources={"gpus": 1, "gpu_type": "k80"}))
    with pytest.raises(JobRefusedError, match=r"'Standard_D2s_v3' has 2 CPUs, 8 GiB, 0 GPUs, and .* gpus=1"):
        made(request(resources={"gpus": 1}), instance_type="Standard_D2s_v3")
    chosen = made(request(resources={"gpus": 1}), instance_type="Standard_NV36ads_A10_v5")
    assert chosen["resources"]["instanceType"] == "Standard_NV36ads_A10_v5"


def test_spot_is_asked_for_by_the_step_or_by_the_settings_but_not_of_a_cluster() -> None:
    assert made(request(resources={"spot": True}))["queueSettings"]["jobTier"] == "Spot"
    assert made(tier="spot")["queueSettings"]["jobTier"] == "Spot"
    with pytest.raises(JobRefusedError, match=r"Resources\(spot=True\): the cluster 'cpu-cluster' itself"):
        made(request(resources={"spot": True}), compute_name="cpu-cluster")


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (None, {"distributionType": "PyTorch", "processCountPerInstance": 1}),
        ("PyTorch", {"distributionType": "PyTorch", "processCountPerInstance": 1}),
        ("MPI", {"distributionType": "Mpi", "processCountPerInstance": 1}),
        ("TensorFlow", {"distributionType": "TensorFlow", "workerCount": 3, "parameterServerCount": 0}),
    ],
)
def test_several_machines_are_always_told_of_each_other(kind: str | None, document: dict[str, Any]) -> None:
    job = made(instance_count=3, distribution=kind)
    assert job["distribution"] == document
    assert job["resources"]["instanceCount"] == 3


@pytest.mark.parametrize(
    ("setting", "sent"),
    [
        ("managed", {"identityType": "Managed"}),
        ("user", {"identityType": "UserIdentity"}),
        ("token", {"identityType": "AMLToken"}),
        (IDENTITY, {"identityType": "Managed", "clientId": IDENTITY}),
    ],
)
def test_a_job_is_the_identity_that_the_settings_say(setting: str, sent: dict[str, str]) -> None:
    job = made(identity=setting)
    assert job["identity"] == sent
    assert job["environmentVariables"].get("AZURE_CLIENT_ID") == sent.get("clientId")


def test_a_secret_of_the_launcher_is_refused_since_there_is_no_place_for_it() -> None:
    with pytest.raises(JobRefusedError, match=r"secret TOKEN='env:OUR_TOKEN': .*Key Vault"):
        made(request(secrets={"TOKEN": "env:OUR_TOKEN"}))
    made(request(secrets={"TOKEN": "file:/run/token"}))


def test_an_artifact_store_that_a_job_cannot_reach_is_refused() -> None:
    with pytest.raises(JobRefusedError, match=r"cannot reach the artifact store file:///data.*'azure-blob'"):
        made(request(artifact_root="file:///data"))


def test_extra_is_merged_and_what_azure_would_not_know_is_named() -> None:
    job = made(extra={"resources": {"properties": {"slots": 2}}, "services": {"shell": {"jobServiceType": "SSH"}}})
    assert job["resources"] == {"instanceCount": 1, "instanceType": "Standard_D2s_v3", "properties": {"slots": 2}}
    with pytest.raises(JobRefusedError, match=r"CommandJob\.queueSetings: .*Did you mean 'queueSettings'"):
        made(extra={"queueSetings": {}})
    with pytest.raises(JobRefusedError, match=r"CommandJob\.resources\.shmsize: .*Did you mean 'shmSize'"):
        made(extra={"resources": {"shmsize": "1g"}})
    with pytest.raises(JobRefusedError, match=r"CommandJob\.limits\.timeout='6h' is not allowed"):
        made(extra={"limits": {"timeout": "6h"}})
    with pytest.raises(JobRefusedError, match=r"CommandJob\.resources\.instanceCount='2' is not allowed"):
        made(extra={"resources": {"instanceCount": "2"}})


@pytest.mark.parametrize("name", ["jobType", "command", "environmentId"])
def test_extra_does_not_change_what_the_job_runs(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: the step operator itself"):
        AzureMLStepOperator(**PLACE, extra={name: "x"})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"compute_name": "cpu", "instance_type": "Standard_D2s_v3"}, "give one of them"),
        ({"compute_name": "cpu", "tier": "spot"}, "leave tier out"),
        ({"distribution": "MPI"}, "needs instance_count"),
        ({"identity": "somebody"}, "identity"),
        ({"shm_size": "8 GB"}, "shm_size"),
        ({"tags": {"stepops_job": "x"}}, "use another tag"),
        ({"subscription_id": "ours"}, "subscription_id"),
        ({"instance_count": 0}, "instance_count"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_they_are_read(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AzureMLStepOperator(**{**PLACE, **wrong})


_TEXTS = st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=3)
_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "instance_type": st.sampled_from([machine.name for machine in MACHINES]),
        "instance_count": st.integers(1, 2**40),
        "tier": st.sampled_from(["dedicated", "spot"]),
        "priority": st.sampled_from(["low", "medium", "high"]),
        "shm_size": st.from_regex(r"\A[0-9]{1,4}[bBkKmMgG]\Z"),
        "docker_args": st.text(min_size=1, max_size=20),
        "identity": st.sampled_from(["managed", "user", "token", IDENTITY]),
        "experiment_name": st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9_-]{0,30}\Z"),
        "environment": st.dictionaries(st.text(max_size=5), st.text(max_size=10), max_size=3),
        "tags": _TEXTS,
        "properties": _TEXTS,
        "timeout": st.integers(1, 10**9),
    },
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=4,
)
_EXTRA = st.dictionaries(
    st.sampled_from(
        [name for name in fields(models.CommandJob) if name not in ("jobType", "command", "environmentId")]
    ),
    _ANYTHING
    | st.dictionaries(
        st.sampled_from(["identityType", "clientId", "timeout", "jobTier", "instanceCount", "distributionType"]),
        _ANYTHING | st.sampled_from(["Managed", "Spot", "PyTorch", "PT5M", "P1D"]),
        max_size=2,
    ),
    max_size=2,
)


@given(_SETTINGS, _EXTRA)
@settings(max_examples=300, deadline=None)
def test_what_the_settings_say_is_accepted_by_azure_s_models_or_refused_here_by_field(
    given_settings: dict[str, Any], extra: dict[str, Any]
) -> None:
    component = AzureMLStepOperator(**PLACE, **given_settings, extra=extra)
    document = create_request(request(), component, WORKSPACE, ENVIRONMENT)
    try:
        check_request(document)
    except JobRefusedError as refused:
        assert str(refused).startswith("CommandJob.")
        return
    check_document(document, models.JobBase, older.JobBase)


def test_an_image_has_one_version_of_the_environment_wherever_it_is_launched_from() -> None:
    assert version_of(IMAGE) == version_of(IMAGE)
    assert version_of(IMAGE).startswith("a" * 64)
    assert version_of(IMAGE) != version_of(f"other.azurecr.io/steps@sha256:{'a' * 64}")
    assert version_of("team.azurecr.io/steps:1") != version_of("team.azurecr.io/steps:2")
    check_document(environment_version(IMAGE), models.EnvironmentVersion, older.EnvironmentVersion)
