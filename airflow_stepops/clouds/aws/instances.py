"""Instance types of SageMaker that fit what a step asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_stepops.errors import JobRefusedError
from airflow_stepops.options import memory_bytes

#: What a step gets that asks for nothing.
USUAL = "ml.m5.large"


@dataclass(frozen=True)
class Instance:
    """One instance type.

    :param memory: GiB.
    :param gpu: common name of its accelerator, ``""`` for none.
    """

    name: str
    cpus: int
    memory: int
    gpus: int = 0
    gpu: str = ""


#: The usual ones, the cheaper first (AWS, "Amazon SageMaker AI pricing" and "Amazon EC2 instance types"). Others are
#: chosen by name, with the setting ``instance_type``.
INSTANCES = (
    Instance("ml.m5.large", 2, 8),
    Instance("ml.r5.large", 2, 16),
    Instance("ml.m5.xlarge", 4, 16),
    Instance("ml.r5.xlarge", 4, 32),
    Instance("ml.m5.2xlarge", 8, 32),
    Instance("ml.r5.2xlarge", 8, 64),
    Instance("ml.m5.4xlarge", 16, 64),
    Instance("ml.r5.4xlarge", 16, 128),
    Instance("ml.r5.8xlarge", 32, 256),
    Instance("ml.m5.12xlarge", 48, 192),
    Instance("ml.r5.12xlarge", 48, 384),
    Instance("ml.m5.24xlarge", 96, 384),
    Instance("ml.r5.24xlarge", 96, 768),
    Instance("ml.g4dn.xlarge", 4, 16, 1, "t4"),
    Instance("ml.g4dn.2xlarge", 8, 32, 1, "t4"),
    Instance("ml.g6.xlarge", 4, 16, 1, "l4"),
    Instance("ml.g5.xlarge", 4, 16, 1, "a10g"),
    Instance("ml.g6.2xlarge", 8, 32, 1, "l4"),
    Instance("ml.g5.2xlarge", 8, 32, 1, "a10g"),
    Instance("ml.g5.4xlarge", 16, 64, 1, "a10g"),
    Instance("ml.g5.8xlarge", 32, 128, 1, "a10g"),
    Instance("ml.g4dn.12xlarge", 48, 192, 4, "t4"),
    Instance("ml.g5.12xlarge", 48, 192, 4, "a10g"),
    Instance("ml.g5.48xlarge", 192, 768, 8, "a10g"),
    Instance("ml.p4d.24xlarge", 96, 1152, 8, "a100"),
    Instance("ml.p5.48xlarge", 192, 2048, 8, "h100"),
)


def instance_for(resources: Mapping[str, Any], chosen: str | None) -> str:
    """Return the instance type for a step.

    :param resources: the JSON form of :class:`~airflow_stepops.options.Resources`.
    :param chosen: what the settings say, which wins; it must be enough, as far as its size is known here.
    :raises JobRefusedError: if nothing fits.
    """
    if chosen is not None:
        known = next((instance for instance in INSTANCES if instance.name == chosen), None)
        if known is not None and not _fits(known, resources):
            raise JobRefusedError(
                f"instance_type {chosen!r} has {_size(known)}, and the step asks for {_asked(resources)}: choose "
                "another type, or ask for less."
            )
        return chosen
    for instance in INSTANCES:
        if _fits(instance, resources):
            return instance.name
    raise JobRefusedError(
        f"no usual instance type of SageMaker has {_asked(resources)}: choose one with the setting instance_type."
    )


def _fits(instance: Instance, resources: Mapping[str, Any]) -> bool:
    memory = memory_bytes(resources["memory"], "memory") if "memory" in resources else 0
    gpu = resources.get("gpu_type")
    return (
        instance.cpus >= resources.get("cpus", 0)
        and instance.memory * 2**30 >= memory
        and instance.gpus >= resources.get("gpus", 0)
        and (gpu is None or instance.gpu == gpu.lower())
    )


def _size(instance: Instance) -> str:
    return f"{instance.cpus} CPUs, {instance.memory} GiB, {instance.gpus} GPUs {instance.gpu}".rstrip()


def _asked(resources: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in resources.items() if name != "spot")
