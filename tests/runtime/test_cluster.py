"""The machines of a job, as each service tells them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_stepops.runtime.cluster import cluster

POOLS = {
    "workerpool1": ["training-workerpool1-ab-0:2222", "training-workerpool1-ab-1:2222"],
    "workerpool0": ["training-workerpool0-ab-0:2222"],
    "workerpool2": ["training-workerpool2-ab-0:2222"],
}


def told(monkeypatch: pytest.MonkeyPatch, kind: str, index: int, pools: dict[str, Any]) -> None:
    task = {"type": kind, "index": index, "trial": ""}
    spec = {"cluster": pools, "task": task, "environment": "cloud", "job": "{}"}
    monkeypatch.setenv("CLUSTER_SPEC", json.dumps(spec))


def test_a_job_on_one_machine_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUSTER_SPEC", raising=False)
    alone = cluster()
    assert (alone.rank, alone.size, alone.hosts) == (0, 1, ("localhost",))
    told(monkeypatch, "workerpool0", 0, {"workerpool0": ["training-workerpool0-ab-0:2222"]})
    assert (cluster().rank, cluster().size) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "index", "rank"),
    [("workerpool0", 0, 0), ("workerpool1", 0, 1), ("workerpool1", 1, 2), ("workerpool2", 0, 3)],
)
def test_machines_of_vertex_are_ranked_pool_by_pool(
    monkeypatch: pytest.MonkeyPatch, kind: str, index: int, rank: int
) -> None:
    told(monkeypatch, kind, index, POOLS)
    here = cluster()
    assert (here.rank, here.size) == (rank, 4)
    assert here.hosts[0] == "training-workerpool0-ab-0"
    assert here.hosts[here.rank] == f"training-{kind}-ab-{index}"
    assert here.variables()["MASTER_ADDR"] == "training-workerpool0-ab-0"
    assert here.variables()["WORLD_SIZE"] == "4"
    assert here.variables()["RANK"] == str(rank)


PYTORCH = {"RANK": "1", "WORLD_SIZE": "3", "NODE_RANK": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "10.0.0.4"}
MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3", "AZ_BATCHAI_JOB_MASTER_NODE_IP": "10.0.0.4"}
ADDRESSES = ["10.0.0.4:2222", "10.0.0.5:2222", "10.0.0.6:2222"]
TENSORFLOW = {"TF_CONFIG": json.dumps({"cluster": {"worker": ADDRESSES}, "task": {"type": "worker", "index": 1}})}


@pytest.mark.parametrize("variables", [PYTORCH, MPI, TENSORFLOW])
def test_machines_of_azure_ml_are_told_of_each_other_in_the_way_of_their_framework(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in {"AZUREML_RUN_ID": "churn-train-1", **variables}.items():
        monkeypatch.setenv(name, value)
    here = cluster()
    assert (here.rank, here.size, here.hosts[0]) == (1, 3, "10.0.0.4")
    assert here.variables()["MASTER_ADDR"] == "10.0.0.4"
    monkeypatch.setenv("AZ_BATCH_HOST_LIST", "10.0.0.4,10.0.0.5,10.0.0.6")
    assert cluster().hosts == ("10.0.0.4", "10.0.0.5", "10.0.0.6")
    for name, value in here.variables().items():  # which the runtime sets for the step
        monkeypatch.setenv(name, value)
    assert (cluster().rank, cluster().size, cluster().hosts[0]) == (1, 3, "10.0.0.4")


def test_hosts_that_azure_ml_does_not_tell_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AZUREML_RUN_ID": "churn-train-1", **PYTORCH}.items():
        monkeypatch.setenv(name, value)
    assert cluster().hosts == ("10.0.0.4", "", "")


def test_a_job_of_azure_ml_on_one_machine_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_RUN_ID", "churn-train-1")
    assert (cluster().rank, cluster().size) == (0, 1)


def test_variables_of_a_framework_mean_nothing_where_azure_ml_did_not_set_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PYTORCH.items():
        monkeypatch.setenv(name, value)
    assert (cluster().rank, cluster().size) == (0, 1)
