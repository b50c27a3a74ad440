"""The machines of a job that runs on several at once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What SageMaker tells each machine ("Amazon SageMaker training toolkit: resourceconfig.json").
_SAGEMAKER = (Path("/opt/ml/input/config/resourceconfig.json"), Path("/opt/ml/config/resourceconfig.json"))
#: What Vertex AI tells each machine ("Distributed training: format of CLUSTER_SPEC").
_VERTEX = "CLUSTER_SPEC"
#: What a job of Azure ML has of its own, and what tells its machines of each other: number of this process and how many
#: there are, by the kind of distribution ("Distributed GPU training guide"). TensorFlow's is a document.
_AZURE = "AZUREML_RUN_ID"
_OF_AZURE = (("RANK", "WORLD_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"))
_TENSORFLOW = "TF_CONFIG"
_PORT = 29500


@dataclass(frozen=True)
class Cluster:
    """The machines of the job, and which of them this is.

    :param rank: number of this machine, from 0. The step's outputs are those of machine 0; what the others return is
        dropped.
    :param hosts: names by which the machines reach each other, in the order of their ranks; ``""`` for those that the
        service does not tell, which may be all but the first.
    """

    rank: int
    hosts: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many machines there are."""
        return len(self.hosts)

    def variables(self) -> dict[str, str]:
        """Return what ``torch.distributed`` reads with ``init_method="env://"``, for one process on each machine."""
        return {
            "MASTER_ADDR": self.hosts[0],
            "MASTER_PORT": str(_PORT),
            "WORLD_SIZE": str(self.size),
            "RANK": str(self.rank),
            "LOCAL_RANK": "0",
        }


def cluster() -> Cluster:
    """Return the machines of this job: one, unless the step operator was told to take several."""
    for path in _SAGEMAKER:
        if path.is_file():
            told = json.loads(path.read_bytes())
            hosts = sorted(told["hosts"], key=lambda host: (len(host), host))  # algo-2 before algo-10
            return Cluster(hosts.index(told["current_host"]), tuple(hosts))
    if _VERTEX in os.environ:
        return _on_vertex(json.loads(os.environ[_VERTEX]))
    if _AZURE in os.environ:
        return _on_azure(os.environ)
    return Cluster(0, ("localhost",))


def _on_vertex(told: dict[str, Any]) -> Cluster:
    """Return the machines of all worker pools: that of the first pool is the first."""
    pools, task = told["cluster"], told["task"]
    names = sorted(pools, key=lambda name: (len(name), name))  # workerpool2 before workerpool10
    rank = sum(len(pools[name]) for name in names[: names.index(task["type"])]) + int(task["index"])
    return Cluster(rank, tuple(address.rpartition(":")[0] for name in names for address in pools[name]))


def _on_azure(told: Mapping[str, str]) -> Cluster:
    if _TENSORFLOW in told:
        config = json.loads(told[_TENSORFLOW])
        workers = config["cluster"]["worker"]
        return Cluster(int(config["task"]["index"]), tuple(address.rpartition(":")[0] for address in workers))
    for rank, size in _OF_AZURE:
        if rank in told and size in told:
            return Cluster(int(told[rank]), _hosts_on_azure(told, int(told[size])))
    return Cluster(0, ("localhost",))


def _hosts_on_azure(told: Mapping[str, str], size: int) -> tuple[str, ...]:
    hosts = [host for host in told.get("AZ_BATCH_HOST_LIST", "").split(",") if host]
    first = told.get("MASTER_ADDR") or told.get("AZ_BATCHAI_JOB_MASTER_NODE_IP") or "localhost"
    if len(hosts) == size and hosts[0] == first:
        return tuple(hosts)
    return (first, *[""] * (size - 1))
