"""What a person may say about a step's image and machine.

Plain dataclasses without dependencies: the same module is imported by DAG files in Airflow and,
from the image, inside the job.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow_stepops.errors import StepDefinitionError, did_you_mean

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 10_000 * _SECONDS["d"]
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)", re.IGNORECASE)
_FACTORS = {
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_PLATFORM = re.compile(r"linux/(amd64|arm64)")


def duration_seconds(value: Any, field: str) -> int:
    """Return a duration in whole seconds.

    :param value: seconds (``int``), a ``timedelta``, or text such as ``"90s"``, ``"6h"``, ``"1h 30m"``.
    :param field: the name to use in the error.
    :raises StepDefinitionError: if the value is none of these, shorter than a second or longer than 10000 days.
    """
    seconds: float | None = None
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value
    elif isinstance(value, str):
        parts = _DURATION.findall(value)
        if parts and not _DURATION.sub("", value).strip():
            seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds is None or not 1 <= seconds <= _LONGEST:
        raise StepDefinitionError(
            f"{field}={value!r} is not a duration: give seconds, a timedelta, or text such as '45m' or '6h' "
            "(s, m, h, d), from one second to 10000 days."
        )
    return int(seconds)


def memory_bytes(value: Any, field: str) -> int:
    """Return an amount of memory in bytes.

    :param value: text with a unit: ``"32GiB"``, ``"500MB"``.
    :raises StepDefinitionError: if the value is not of that form.
    """
    match = _MEMORY.fullmatch(value.strip()) if isinstance(value, str) else None
    amount = float(match[1]) * _FACTORS[match[2].lower()] if match else 0.0
    if not 0 < amount < math.inf:
        raise StepDefinitionError(
            f"{field}={value!r} is not an amount of memory: give a number and a unit, such as '32GiB' or '500MB'."
        )
    return int(amount)


@dataclass(frozen=True)
class Resources:
    """The machine a step asks for. A step operator picks what fits.

    :param cpus: number of CPUs.
    :param memory: RAM with a unit, such as ``"32GiB"``.
    :param gpus: number of accelerators.
    :param gpu_type: accelerator model in the cloud's own or the common name, such as ``"a10g"``.
    :param spot: use capacity that may be taken away.
    :raises StepDefinitionError: naming the field, when a value is out of range.
    """

    cpus: float | None = None
    memory: str | None = None
    gpus: int = 0
    gpu_type: str | None = None
    spot: bool = False

    def __post_init__(self) -> None:
        if self.cpus is not None and (
            isinstance(self.cpus, bool) or not isinstance(self.cpus, (int, float)) or not 0 < self.cpus < math.inf
        ):
            raise StepDefinitionError(f"Resources(cpus={self.cpus!r}): give a number above 0.")
        if self.memory is not None:
            memory_bytes(self.memory, "Resources.memory")
        if isinstance(self.gpus, bool) or not isinstance(self.gpus, int) or self.gpus < 0:
            raise StepDefinitionError(f"Resources(gpus={self.gpus!r}): give a whole number, 0 or more.")
        if self.gpu_type is not None and not isinstance(self.gpu_type, str):
            raise StepDefinitionError(f"Resources(gpu_type={self.gpu_type!r}): give a name such as 'a10g'.")
        if self.gpu_type is not None and self.gpus == 0:
            raise StepDefinitionError(
                f"Resources(gpu_type={self.gpu_type!r}) asks for no GPU: add gpus=1 or drop gpu_type."
            )
        if not isinstance(self.spot, bool):
            raise StepDefinitionError(f"Resources(spot={self.spot!r}): give True or False.")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as JSON."""
        return _changed_fields(self)


@dataclass(frozen=True)
class Image:
    """What a step's image holds. Everything is optional.

    :param requirements: PEP 508 requirements, or the path of a requirements file beside the DAG file.
    :param base: base image, best pinned by digest (``python:3.12-slim@sha256:…``).
    :param python: minor version of Python in the base image, such as ``"3.12"``; default: the worker's.
    :param platform: ``linux/amd64`` or ``linux/arm64``; default: the step operator's.
    :param apt_packages: Debian packages to add to the base (needs the docker builder).
    :param dockerfile: path of a Dockerfile for the base (needs the docker builder).
    :param uri: a finished image, used as it is; excludes every other field.
    :raises StepDefinitionError: naming the field, when a value or a combination is wrong.
    """

    requirements: tuple[str, ...] | str = ()
    base: str | None = None
    python: str | None = None
    platform: str | None = None
    apt_packages: tuple[str, ...] = ()
    dockerfile: str | None = None
    uri: str | None = None

    def __post_init__(self) -> None:
        for field in ("requirements", "apt_packages"):
            value = getattr(self, field)
            if field == "requirements" and isinstance(value, str):
                continue
            if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
                allowed = "a list of strings" + (" or the path of a file" if field == "requirements" else "")
                raise StepDefinitionError(f"Image({field}={value!r}): give {allowed}.")
            object.__setattr__(self, field, tuple(value))
        for field in ("base", "python", "platform", "dockerfile", "uri"):
            value = getattr(self, field)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise StepDefinitionError(f"Image({field}={value!r}): give text.")
        if self.python is not None and not re.fullmatch(r"3\.\d{1,2}", self.python):
            raise StepDefinitionError(f"Image(python={self.python!r}): give a minor version such as '3.12'.")
        if self.platform is not None and not _PLATFORM.fullmatch(self.platform):
            raise StepDefinitionError(f"Image(platform={self.platform!r}): give 'linux/amd64' or 'linux/arm64'.")
        if self.base and self.dockerfile:
            raise StepDefinitionError("Image(base=…, dockerfile=…): a Dockerfile names its own base; give one of them.")
        others = [name for name in _changed_fields(self) if name != "uri"]
        if self.uri and others:
            raise StepDefinitionError(
                f"Image(uri={self.uri!r}) is used as it is, so {', '.join(others)} would have no effect: drop either."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as JSON."""
        return _changed_fields(self)


def from_dict(cls: type[Any], value: dict[str, Any]) -> Any:
    """Rebuild an :class:`Image` or :class:`Resources` from its JSON form.

    :raises StepDefinitionError: for a field the class does not have, naming the nearest one.
    """
    allowed = [field.name for field in dataclasses.fields(cls)]
    for name in value:
        if name not in allowed:
            raise StepDefinitionError(
                f"{cls.__name__} has no field {name!r}.{did_you_mean(name, allowed)} Allowed: {', '.join(allowed)}."
            )
    return cls(**value)


def _changed_fields(value: Any) -> dict[str, Any]:
    changed = {}
    for field in dataclasses.fields(value):
        current = getattr(value, field.name)
        if current != field.default:
            changed[field.name] = list(current) if isinstance(current, tuple) else current
    return changed
