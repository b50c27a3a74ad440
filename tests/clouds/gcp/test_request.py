"""Requests of Vertex AI's custom jobs, held to Google's own classes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from google.cloud import aiplatform_v1
from google.protobuf.json_format import ParseDict, ParseError
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_stepops.clouds.gcp.limits import ACCELERATOR_TYPES, check_request
from airflow_stepops.clouds.gcp.machines import ACCELERATORS, MACHINES
from airflow_stepops.clouds.gcp.request import create_request
from airflow_stepops.clouds.gcp.step_operator import VertexStepOperator
from airflow_stepops.errors import JobRefusedError
from airflow_stepops.jobs.protocol import JobRequest
from airflow_stepops.runtime.spec import Attempt

IMAGE = f"europe-west4-docker.pkg.dev/team/steps/stepops@sha256:{'a' * 64}"
SPEC_URI = "gs://bucket/team/runs/churn/manual/train/-1/attempt-1/spec.json"
ACCOUNT = "trainer@team.iam.gserviceaccount.com"
KEY = "projects/team/locations/europe-west4/keyRings/ring/cryptoKeys/key"


def request(**facts: Any) -> JobRequest:
    usual: dict[str, Any] = {
        "name": "churn-train-1-0123456789abcdef",
        "attempt": Attempt("churn", "manual__2026-01-01T00:00:00+00:00", "train", -1, 1, "instance", "ti-1"),
        "image": IMAGE,
        "spec_uri": SPEC_URI,
        "artifact_root": "gs://bucket/team",
    }
    return JobRequest(**{**usual, **facts})


def made(asked: JobRequest | None = None, **given: Any) -> dict[str, Any]:
    """Return the CustomJob for a component with these settings, checked as before the call, and by Google's classes."""
    component = VertexStepOperator(**{"region": "europe-west4", **given})
    document = create_request(asked or request(), component, "team")
    check_request(document)
    parsed(document)
    return document


def parsed(document: dict[str, Any]) -> Any:
    return ParseDict(document, aiplatform_v1.CustomJob()._pb)


def machine(asked: JobRequest | None = None, **given: Any) -> dict[str, Any]:
    found: dict[str, Any] = made(asked, **given)["jobSpec"]["workerPoolSpecs"][0]["machineSpec"]
    return found


def test_a_job_runs_the_runtime_in_the_image_and_is_told_its_spec_alone() -> None:
    document = made()
    (pool,) = document["jobSpec"]["workerPoolSpecs"]
    assert pool["containerSpec"] == {
        "imageUri": IMAGE,
        "command": ["python", "-m", "airflow_stepops.runtime"],
        "env": [{"name": "STEPOPS_SPEC", "value": SPEC_URI}],
    }
    assert pool["replicaCount"] == "1"
    assert document["displayName"] == document["labels"]["stepops_job"] == "churn-train-1-0123456789abcdef"
    assert document["labels"]["airflow_run_id"] == "manual__2026-01-01t00_00_00_00_00"
    assert document["jobSpec"]["scheduling"] == {"timeout": "604800s", "strategy": "STANDARD"}
    assert "serviceAccount" not in document["jobSpec"]


def test_the_step_s_timeout_goes_before_the_usual_one() -> None:
    assert made(request(timeout=600))["jobSpec"]["scheduling"]["timeout"] == "600s"
    assert made(timeout=7200)["jobSpec"]["scheduling"]["timeout"] == "7200s"


def test_a_dollar_in_a_variable_stays_what_it_is() -> None:
    document = made(environment={"PRICE": "$(HOME) $5 $$(X) a$$b $"})
    variables = {v["name"]: v["value"] for v in document["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["env"]}
    assert variables["PRICE"] == "$$(HOME) $5 $$$$(X) a$$$$b $"


def test_settings_of_machines_go_into_each_pool() -> None:
    document = made(
        machine_type="g2-standard-12",
        replica_count=3,
        boot_disk_type="pd-ssd",
        boot_disk_size=200,
        nfs_mounts=[{"server": "10.0.0.2", "path": "/data", "mount_point": "data"}],
    )
    first, others = document["jobSpec"]["workerPoolSpecs"]
    assert (first["replicaCount"], others["replicaCount"]) == ("1", "2")
    expected = {"machineType": "g2-standard-12", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}
    assert first["machineSpec"] == others["machineSpec"] == expected
    assert first["diskSpec"] == others["diskSpec"] == {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 200}
    assert others["nfsMounts"] == [{"server": "10.0.0.2", "path": "/data", "mountPoint": "data"}]


def test_settings_of_the_job_go_where_google_has_them() -> None:
    document = made(
        request(timeout=60),
        service_account=ACCOUNT,
        network="projects/123/global/networks/vpc",
        reserved_ip_ranges=["training"],
        encryption_key=KEY,
        labels={"team": "größe-1"},
        tensorboard="projects/team/locations/europe-west4/tensorboards/77",
        strategy="flex_start",
        max_wait=0,
        restart_on_worker_restart=True,
        persistent_resource="cluster-1",
        web_access=True,
    )
    job = document["jobSpec"]
    assert job["scheduling"] == {
        "timeout": "60s",
        "strategy": "FLEX_START",
        "maxWaitDuration": "0s",
        "restartJobOnWorkerRestart": True,
    }
    assert (job["serviceAccount"], job["network"]) == (ACCOUNT, "projects/123/global/networks/vpc")
    assert (job["reservedIpRanges"], job["persistentResourceId"]) == (["training"], "cluster-1")
    assert job["enableWebAccess"] is True
    assert job["tensorboard"].endswith("/77")
    assert document["encryptionSpec"] == {"kmsKeyName": KEY}
    assert document["labels"]["team"] == "größe-1"


def test_a_job_in_an_experiment_names_the_experiment_of_its_project_and_region() -> None:
    job = made(experiment_name="churn", service_account=ACCOUNT, psc_interface="attached")["jobSpec"]
    assert job["experiment"] == "projects/team/locations/europe-west4/metadataStores/default/contexts/churn"
    assert job["pscInterfaceConfig"] == {"networkAttachment": "attached"}


def test_worker_pools_of_other_machines_run_the_same_image() -> None:
    pools = made(worker_pools=[{"machine_type": "n1-highmem-8", "replica_count": 2}])["jobSpec"]["workerPoolSpecs"]
    assert [pool["machineSpec"]["machineType"] for pool in pools] == ["e2-standard-4", "n1-highmem-8"]
    assert pools[0]["containerSpec"] == pools[1]["containerSpec"]


def test_spot_may_be_asked_for_by_step_or_stack() -> None:
    assert made(request(resources={"spot": True}))["jobSpec"]["scheduling"]["strategy"] == "SPOT"
    assert made(strategy="spot", disable_retries=True)["jobSpec"]["scheduling"] == {
        "timeout": "604800s",
        "strategy": "SPOT",
        "disableRetries": True,
    }


def test_waiting_for_scarce_machines_is_no_longer_than_the_step_may_wait() -> None:
    asked = request(pending_timeout=900)
    assert made(asked, strategy="flex_start")["jobSpec"]["scheduling"]["maxWaitDuration"] == "900s"
    assert "maxWaitDuration" not in made(asked)["jobSpec"]["scheduling"]


def test_extra_is_merged_pool_by_pool_and_leaves_the_rest() -> None:
    affinity = {"reservationAffinityType": "ANY_RESERVATION"}
    document = made(
        extra={
            "jobSpec": {
                "enableDashboardAccess": True,
                "workerPoolSpecs": [{"machineSpec": {"reservationAffinity": affinity}}],
            }
        },
        replica_count=2,
    )
    first, second = document["jobSpec"]["workerPoolSpecs"]
    assert first["machineSpec"] == {"machineType": "e2-standard-4", "reservationAffinity": affinity}
    assert second["machineSpec"] == {"machineType": "e2-standard-4"}
    assert first["containerSpec"]["imageUri"] == IMAGE
    assert document["jobSpec"]["enableDashboardAccess"] is True


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "e2-standard-4"),
        ({"cpus": 8}, "e2-standard-8"),
        ({"memory": "30GiB"}, "e2-highmem-4"),
        ({"gpus": 1}, "n1-standard-4 NVIDIA_TESLA_T4 x 1"),
        ({"gpus": 1, "gpu_type": "L4", "memory": "40GiB"}, "g2-standard-12 NVIDIA_L4 x 1"),
        ({"gpus": 1, "gpu_type": "nvidia_l4"}, "g2-standard-4 NVIDIA_L4 x 1"),
        ({"gpus": 2, "gpu_type": "l4"}, "g2-standard-24 NVIDIA_L4 x 2"),
        ({"gpus": 8, "gpu_type": "h100"}, "a3-highgpu-8g NVIDIA_H100_80GB x 8"),
    ],
)
def test_resources_choose_the_cheapest_usual_machine(resources: dict[str, Any], expected: str) -> None:
    assert written(machine(request(resources=resources))) == expected


@pytest.mark.parametrize(
    ("resources", "given", "expected"),
    [
        ({}, {"machine_type": "n1-highmem-96"}, "n1-highmem-96"),
        ({}, {"machine_type": "n1-standard-4"}, "n1-standard-4"),
        ({"gpus": 2}, {"machine_type": "n1-standard-8"}, "n1-standard-8 NVIDIA_TESLA_T4 x 2"),
        ({"gpus": 1, "gpu_type": "v100"}, {"machine_type": "n1-highmem-8"}, "n1-highmem-8 NVIDIA_TESLA_V100 x 1"),
        ({}, {"machine_type": "a2-highgpu-1g"}, "a2-highgpu-1g NVIDIA_TESLA_A100 x 1"),
        ({}, {"accelerator_type": "NVIDIA_L4", "accelerator_count": 4}, "g2-standard-48 NVIDIA_L4 x 4"),
        (
            {"gpus": 1},
            {"machine_type": "a4-highgpu-8g", "accelerator_type": "NVIDIA_B200", "accelerator_count": 8},
            "a4-highgpu-8g NVIDIA_B200 x 8",
        ),
    ],
)
def test_settings_choose_before_resources(resources: dict[str, Any], given: dict[str, Any], expected: str) -> None:
    assert written(machine(request(resources=resources), **given)) == expected


def written(spec: dict[str, Any]) -> str:
    accelerator = f" {spec['acceleratorType']} x {spec['acceleratorCount']}" if "acceleratorType" in spec else ""
    return f"{spec['machineType']}{accelerator}"


def test_our_accelerators_are_google_s() -> None:
    theirs = {name for name in aiplatform_v1.AcceleratorType.__members__ if not name.endswith("UNSPECIFIED")}
    assert set(ACCELERATOR_TYPES) == theirs
    assert set(ACCELERATORS.values()) <= theirs
    assert {machine.accelerator for machine in MACHINES} - {""} <= theirs


@pytest.mark.parametrize(
    ("asked", "given", "said"),
    [
        ({"resources": {"gpus": 2}}, {"machine_type": "g2-standard-8"}, "has 8 CPUs, 32 GiB, 1 GPUs NVIDIA_L4"),
        ({"resources": {"cpus": 16}}, {"machine_type": "e2-standard-4"}, "and cpus=16 is asked for"),
        ({"resources": {"cpus": 1000}}, {}, "no usual machine type of Vertex AI has cpus=1000"),
        ({"resources": {"gpus": 1}}, {"machine_type": "z9-large-1"}, "with accelerator_type and accelerator_count"),
        ({"resources": {"gpus": 2}}, {"accelerator_type": "NVIDIA_L4"}, "the step asks for gpus=2"),
        ({}, {"accelerator_type": "NVIDIA_L44", "machine_type": "n1-standard-4"}, "Did you mean 'NVIDIA_L4'?"),
        ({"resources": {"spot": True}}, {"strategy": "flex_start"}, "there is no spot"),
        ({"artifact_root": "s3://bucket"}, {}, "artifact_store of flavor 'gcs'"),
        ({"secrets": {"TOKEN": "env:TOKEN"}}, {}, "Keep it in Secret Manager"),
        ({}, {"environment": {"a-b": "c"}}, "containerSpec.env[0].name='a-b'"),
        ({}, {"environment": {"A": "x" * 130_001}}, "at most 130000 are allowed"),
        ({}, {"environment": {f"A{number}": "x" for number in range(100)}}, "env has 101 items"),
        ({}, {"labels": {"Team": "x"}}, "the key 'Team' has 'T'"),
        ({}, {"labels": {"team": "x y"}}, "the value of 'team', 'x y' has ' '"),
        ({}, {"labels": {"team": "x" * 64}}, "at most 63 are allowed"),
        ({}, {"extra": {"jobSpec": {"schedulin": {}}}}, "CustomJob.jobSpec.schedulin: Vertex AI knows no such field"),
        ({}, {"extra": {"jobSpec": {"scheduling": {"timeout": "1h"}}}}, "timeout='1h': must be seconds"),
        ({}, {"extra": {"jobSpec": {"enableWebAccess": "yes"}}}, "must be true or false"),
    ],
)
def test_what_the_service_would_refuse_is_refused_first_and_the_field_is_named(
    asked: dict[str, Any], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobRefusedError) as caught:
        made(request(**asked), **given)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "region"),
        ({"region": "Frankfurt"}, "region"),
        ({"machine_typ": "n1-standard-4"}, "Did you mean 'machine_type'?"),
        ({"accelerator_count": 2}, "accelerator_count needs accelerator_type"),
        ({"worker_pools": [{"machine_type": "n1-standard-4"}], "replica_count": 2}, "give one of them"),
        ({"network": "projects/team/global/networks/vpc"}, "network"),
        ({"network": "projects/1/global/networks/v", "psc_interface": "a"}, "one way into a VPC"),
        ({"reserved_ip_ranges": ["a"]}, "reserved_ip_ranges needs network"),
        ({"max_wait": 60}, "max_wait needs strategy: flex_start"),
        ({"disable_retries": True, "restart_on_worker_restart": True}, "give one of them"),
        ({"experiment_name": "churn"}, "need service_account"),
        ({"service_account": "trainer"}, "service_account"),
        ({"extra": {"displayName": "x"}}, "which job this is"),
        ({"labels": {"stepops_job": "x"}}, "use another label"),
        ({"strategy": "cheap"}, "strategy"),
    ],
)
def test_settings_that_cannot_work_are_refused_while_the_stack_is_read(given: dict[str, Any], said: str) -> None:
    from airflow_stepops.stacks.checks import model_error

    region = {} if not given else {"region": "europe-west4"}
    with pytest.raises(ValueError) as caught:
        VertexStepOperator(**{**region, **given})
    told = str(model_error(caught.value, "stepops.yaml: step_operators.gpu.", VertexStepOperator))
    assert said in told
    assert "\n" not in told


@given(st.text("$()A b", max_size=12))
@settings(max_examples=300)
def test_every_value_of_a_variable_reaches_the_container_as_it_is(value: str) -> None:
    (variable, _) = made(environment={"B": value})["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["env"]
    assert expanded(variable["value"], {"A": "of the machine"}) == value


def expanded(value: str, variables: dict[str, str]) -> str:
    """Return what Kubernetes makes of a value: $$ is $, $(NAME) is a variable, or itself where there is none."""
    return re.sub(r"\$\$|\$\(([^)]*)\)", lambda f: variables.get(f[1], f[0]) if f[0] != "$$" else "$", value)


TEXT = st.text(max_size=20)
NAMES = st.one_of(st.sampled_from(["a", "b_c", "D", "e-f", "é"]), st.text(max_size=70))
EXTRAS = st.sampled_from(
    [
        {},
        {"jobSpec": {"enableDashboardAccess": True}},
        {"jobSpec": {"enableDashboardAccess": 1}},
        {"jobSpec": {"scheduling": {"strategy": "LOW_COST"}}},
        {"jobSpec": {"scheduling": {"strategy": "CHEAP"}}},
        {"jobSpec": {"workerPoolSpecs": [{"machineSpec": {"tpuTopology": "2x2"}}]}},
        {"jobSpec": {"workerPoolSpecs": [{"replicaCount": "many"}]}},
        {"jobSpec": {"workerPoolSpecs": {}}},
        {"jobSpec": []},
        {"unknown": {}},
    ]
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "machine_type": st.sampled_from(["n1-standard-8", "g2-standard-8", "z1-new-2"]),
        "accelerator_type": st.sampled_from(["NVIDIA_TESLA_T4", "NVIDIA_L4", "NVIDIA_NONE"]),
        "accelerator_count": st.integers(1, 2**32),
        "replica_count": st.integers(1, 2**64),
        "worker_pools": st.lists(
            st.fixed_dictionaries({"machine_type": st.just("n1-standard-4"), "replica_count": st.integers(1, 2**64)}),
            max_size=3,
        ),
        "boot_disk_size": st.integers(100, 64000),
        "service_account": st.just(ACCOUNT),
        "labels": st.dictionaries(NAMES, NAMES, max_size=70),
        "experiment_name": st.just("churn"),
        "timeout": st.integers(1, 10**14),
        "strategy": st.sampled_from(["standard", "spot", "flex_start"]),
        "max_wait": st.integers(0, 10**14),
        "disable_retries": st.booleans(),
        "web_access": st.booleans(),
        "environment": st.dictionaries(st.one_of(st.sampled_from(["A", "B"]), TEXT), TEXT, max_size=3),
        "nfs_mounts": st.lists(
            st.fixed_dictionaries({"server": TEXT, "path": TEXT.map("/{}".format), "mount_point": TEXT}), max_size=2
        ),
        "extra": EXTRAS,
    },
)
RESOURCES = st.fixed_dictionaries(
    {}, optional={"cpus": st.integers(1, 300), "gpus": st.integers(1, 9), "spot": st.booleans()}
)


@given(SETTINGS, RESOURCES, st.text(min_size=1, max_size=300))
@settings(max_examples=1000)
def test_every_generated_request_is_one_that_google_takes_or_is_refused_by_us_first(
    given_settings: dict[str, Any], resources: dict[str, Any], run_id: str
) -> None:
    try:
        component = VertexStepOperator(region="europe-west4", **given_settings)
    except ValueError:
        return
    asked = request(attempt=Attempt("churn", run_id, "train", 3, 1, "instance", "ti-1"), resources=resources)
    try:
        document = create_request(asked, component, "team")
        check_request(document)
    except JobRefusedError as error:
        assert "\n" not in str(error)
        return
    try:
        parsed(document)
    except ParseError as error:
        raise AssertionError(f"Google does not take {document}") from error
