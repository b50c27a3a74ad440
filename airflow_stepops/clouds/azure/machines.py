"""Machines of Azure ML's serverless compute that fit what a step asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_stepops.errors import JobRefusedError
from airflow_stepops.options import memory_bytes


@dataclass(frozen=True)
class Machine:
    """One size of virtual machine.

    :param memory: GiB.
    :param gpu: common name of its accelerator, ``""`` for none.
    """

    name: str
    cpus: int
    memory: int
    gpus: int = 0
    gpu: str = ""


#: The usual ones, the cheaper first (Microsoft, "Sizes for virtual machines in Azure" and "Azure Machine Learning
#: pricing"). Others are chosen by name, with the setting ``instance_type``.
MACHINES = (
    Machine("Standard_D2s_v3", 2, 8),
    Machine("Standard_E2s_v3", 2, 16),
    Machine("Standard_D4s_v3", 4, 16),
    Machine("Standard_E4s_v3", 4, 32),
    Machine("Standard_D8s_v3", 8, 32),
    Machine("Standard_E8s_v3", 8, 64),
    Machine("Standard_D16s_v3", 16, 64),
    Machine("Standard_E16s_v3", 16, 128),
    Machine("Standard_D32s_v3", 32, 128),
    Machine("Standard_E32s_v3", 32, 256),
    Machine("Standard_D64s_v3", 64, 256),
    Machine("Standard_E64s_v3", 64, 432),
    Machine("Standard_NC4as_T4_v3", 4, 28, 1, "t4"),
    Machine("Standard_NC8as_T4_v3", 8, 56, 1, "t4"),
    Machine("Standard_NC16as_T4_v3", 16, 110, 1, "t4"),
    Machine("Standard_NC24ads_A100_v4", 24, 220, 1, "a100-80gb"),
    Machine("Standard_NC64as_T4_v3", 64, 440, 4, "t4"),
    Machine("Standard_NC40ads_H100_v5", 40, 320, 1, "h100"),
    Machine("Standard_NC48ads_A100_v4", 48, 440, 2, "a100-80gb"),
    Machine("Standard_NC80adis_H100_v5", 80, 640, 2, "h100"),
    Machine("Standard_NC96ads_A100_v4", 96, 880, 4, "a100-80gb"),
    Machine("Standard_ND96asr_v4", 96, 900, 8, "a100"),
    Machine("Standard_ND96amsr_A100_v4", 96, 1900, 8, "a100-80gb"),
    Machine("Standard_ND96isr_H100_v5", 96, 1900, 8, "h100"),
    Machine("Standard_ND96isr_H200_v5", 96, 1850, 8, "h200"),
)


def instance_type(resources: Mapping[str, Any], chosen: str | None) -> str:
    """Return the size of machine for a step.

    :param resources: the JSON form of :class:`~airflow_stepops.options.Resources`.
    :param chosen: what the settings say, which wins; it must be enough, as far as its size is known here.
    :raises JobRefusedError: if nothing fits.
    """
    if chosen is not None:
        known = next((machine for machine in MACHINES if machine.name.lower() == chosen.lower()), None)
        if known is not None and not _fits(known, resources):
            raise JobRefusedError(
                f"instance_type {chosen!r} has {_size(known)}, and the step asks for {_asked(resources)}: choose "
                "another type, or ask for less."
            )
        return chosen
    for machine in MACHINES:
        if _fits(machine, resources):
            return machine.name
    raise JobRefusedError(
        f"no usual machine of Azure ML has {_asked(resources)}: choose one with the setting instance_type."
    )


def _fits(machine: Machine, resources: Mapping[str, Any]) -> bool:
    memory = memory_bytes(resources["memory"], "memory") if "memory" in resources else 0
    return (
        machine.cpus >= resources.get("cpus", 0)
        and machine.memory * 2**30 >= memory
        and machine.gpus >= resources.get("gpus", 0)
        and _is_of(machine, resources.get("gpu_type"))
    )


def _is_of(machine: Machine, gpu_type: str | None) -> bool:
    """Whether the accelerator is of this type: ``a100`` has 40 GB or more."""
    return gpu_type is None or machine.gpu == gpu_type.lower() or machine.gpu.startswith(f"{gpu_type.lower()}-")


def _size(machine: Machine) -> str:
    return f"{machine.cpus} CPUs, {machine.memory} GiB, {machine.gpus} GPUs {machine.gpu}".rstrip()


def _asked(resources: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in resources.items() if name != "spot")
