"""Machine types and accelerators of Vertex AI that fit what a step asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_stepops.clouds.gcp.step_operator import VertexStepOperator
from airflow_stepops.errors import JobRefusedError
from airflow_stepops.options import memory_bytes

#: Common name of an accelerator → Vertex's own (AcceleratorType).
ACCELERATORS = {
    "p4": "NVIDIA_TESLA_P4",
    "t4": "NVIDIA_TESLA_T4",
    "p100": "NVIDIA_TESLA_P100",
    "v100": "NVIDIA_TESLA_V100",
    "l4": "NVIDIA_L4",
    "a100": "NVIDIA_TESLA_A100",
    "a100-80gb": "NVIDIA_A100_80GB",
    "h100": "NVIDIA_H100_80GB",
    "h100-mega": "NVIDIA_H100_MEGA_80GB",
    "h200": "NVIDIA_H200_141GB",
    "b200": "NVIDIA_B200",
}


@dataclass(frozen=True)
class Machine:
    """One machine type, with the accelerators that are in it or usually added to it.

    :param memory: GiB.
    :param accelerator: Vertex's name of it, ``""`` for none.
    """

    name: str
    cpus: int
    memory: float
    accelerators: int = 0
    accelerator: str = ""

    def spec(self) -> dict[str, Any]:
        """Return the MachineSpec of a request."""
        spec: dict[str, Any] = {"machineType": self.name}
        if self.accelerators:
            spec |= {"acceleratorType": self.accelerator, "acceleratorCount": self.accelerators}
        return spec


#: The usual ones, the cheaper first (Google Cloud, "Configure compute resources for custom training" and "Vertex AI
#: pricing"). Others are chosen by name, with the setting ``machine_type``.
MACHINES = (
    Machine("e2-standard-4", 4, 16),
    Machine("e2-highmem-4", 4, 32),
    Machine("e2-standard-8", 8, 32),
    Machine("e2-highmem-8", 8, 64),
    Machine("e2-standard-16", 16, 64),
    Machine("e2-highmem-16", 16, 128),
    Machine("n2-standard-32", 32, 128),
    Machine("n2-highmem-32", 32, 256),
    Machine("n2-standard-64", 64, 256),
    Machine("n2-highmem-64", 64, 512),
    Machine("n1-standard-4", 4, 15, 1, "NVIDIA_TESLA_T4"),
    Machine("n1-standard-8", 8, 30, 1, "NVIDIA_TESLA_T4"),
    Machine("n1-standard-16", 16, 60, 2, "NVIDIA_TESLA_T4"),
    Machine("n1-standard-32", 32, 120, 4, "NVIDIA_TESLA_T4"),
    Machine("g2-standard-4", 4, 16, 1, "NVIDIA_L4"),
    Machine("g2-standard-8", 8, 32, 1, "NVIDIA_L4"),
    Machine("g2-standard-12", 12, 48, 1, "NVIDIA_L4"),
    Machine("g2-standard-16", 16, 64, 1, "NVIDIA_L4"),
    Machine("g2-standard-24", 24, 96, 2, "NVIDIA_L4"),
    Machine("g2-standard-32", 32, 128, 1, "NVIDIA_L4"),
    Machine("g2-standard-48", 48, 192, 4, "NVIDIA_L4"),
    Machine("g2-standard-96", 96, 384, 8, "NVIDIA_L4"),
    Machine("a2-highgpu-1g", 12, 85, 1, "NVIDIA_TESLA_A100"),
    Machine("a2-ultragpu-1g", 12, 170, 1, "NVIDIA_A100_80GB"),
    Machine("a2-highgpu-2g", 24, 170, 2, "NVIDIA_TESLA_A100"),
    Machine("a2-ultragpu-2g", 24, 340, 2, "NVIDIA_A100_80GB"),
    Machine("a2-highgpu-4g", 48, 340, 4, "NVIDIA_TESLA_A100"),
    Machine("a2-ultragpu-4g", 48, 680, 4, "NVIDIA_A100_80GB"),
    Machine("a2-highgpu-8g", 96, 680, 8, "NVIDIA_TESLA_A100"),
    Machine("a2-ultragpu-8g", 96, 1360, 8, "NVIDIA_A100_80GB"),
    Machine("a3-highgpu-8g", 208, 1872, 8, "NVIDIA_H100_80GB"),
    Machine("a3-ultragpu-8g", 224, 2952, 8, "NVIDIA_H200_141GB"),
)

#: To machines of this series accelerators are added, and it has none without; in others they are built in.
_OPEN = "n1-"


def machine_spec(resources: Mapping[str, Any], settings: VertexStepOperator) -> dict[str, Any]:
    """Return the MachineSpec of a request.

    :param resources: the JSON form of :class:`~airflow_stepops.options.Resources`.
    :param settings: what they say wins; it must be enough, as far as sizes are known here.
    :raises JobRefusedError: if nothing fits.
    """
    asked = {name: value for name, value in resources.items() if name != "spot"}
    gpus = int(asked.get("gpus", 0))
    accelerator = settings.accelerator_type or _accelerator(asked.get("gpu_type"))
    count = settings.accelerator_count or (1 if settings.accelerator_type else gpus)
    if gpus and (count < gpus or (asked.get("gpu_type") and accelerator != _accelerator(asked["gpu_type"]))):
        raise JobRefusedError(
            f"accelerator_type {accelerator!r}, accelerator_count {count}: the step asks for {_said(asked)}; leave the "
            "settings out, or ask for less."
        )
    if settings.machine_type is not None:
        return _of_type(settings.machine_type, asked, accelerator, count).spec()
    for machine in MACHINES:
        if _is_enough(machine, asked) and _has(machine, accelerator, count, exactly=bool(settings.accelerator_type)):
            return machine.spec()
    wanted = ", ".join(filter(None, (_said(asked), settings.accelerator_type and f"{accelerator} x {count}")))
    raise JobRefusedError(
        f"no usual machine type of Vertex AI has {wanted}: choose one with the setting machine_type, and its "
        "accelerators with accelerator_type and accelerator_count."
    )


def _of_type(name: str, asked: Mapping[str, Any], accelerator: str, count: int) -> Machine:
    """Return the machine of this type, with the accelerators that are asked for."""
    known = next((machine for machine in MACHINES if machine.name == name), None)
    if known is not None and not name.startswith(_OPEN):
        machine = known
    else:
        if count and not accelerator:
            accelerator = ACCELERATORS["t4"] if name.startswith(_OPEN) else ""
        if count and not accelerator:
            raise JobRefusedError(
                f"machine_type {name!r}: the step asks for {_said(asked)}; say which accelerators the machine has, "
                "with accelerator_type and accelerator_count."
            )
        machine = Machine(name, known.cpus if known else 0, known.memory if known else 0, count, accelerator)
    enough = known is None or _is_enough(machine, asked)
    if not enough or (count and not _has(machine, accelerator, count, exactly=False)):
        wanted = f"{accelerator} x {count}" if count and enough else _said(asked)
        raise JobRefusedError(
            f"machine_type {name!r} has {_size(machine)}, and {wanted} is asked for: choose another type, or ask for "
            "less."
        )
    return machine


def _is_enough(machine: Machine, asked: Mapping[str, Any]) -> bool:
    memory = memory_bytes(asked["memory"], "memory") if "memory" in asked else 0
    return machine.cpus >= asked.get("cpus", 0) and machine.memory * 2**30 >= memory


def _has(machine: Machine, accelerator: str, count: int, *, exactly: bool) -> bool:
    if not count:
        return not machine.accelerators
    enough = machine.accelerators == count if exactly else machine.accelerators >= count
    return enough and (not accelerator or machine.accelerator == accelerator)


def _accelerator(gpu_type: str | None) -> str:
    """Return Vertex's name for an accelerator, which people may use too."""
    return "" if gpu_type is None else ACCELERATORS.get(gpu_type.lower(), gpu_type.upper())


def _size(machine: Machine) -> str:
    return f"{machine.cpus} CPUs, {machine.memory:g} GiB, {machine.accelerators} GPUs {machine.accelerator}".rstrip()


def _said(asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in asked.items())
