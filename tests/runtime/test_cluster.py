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
