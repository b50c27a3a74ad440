"""Checks a CustomJob before it is sent, so that what is wrong is said by field and before anything is made.

The fields and enums are those of ``google.cloud.aiplatform.v1``, to which tests hold them; what only prose says comes
from its descriptions in the API's discovery document.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_stepops.errors import JobRefusedError, did_you_mean

#: Given a value and where it is, tells what is wrong with it.
Rule = Callable[[Any, str], Iterator[str]]

#: Bytes of a variable's value: Linux starts no program with a variable of more than 131,072, its name included.
LONGEST_VALUE = 130_000
LONGEST_LABEL = 63
_MOST_LABELS = 64
_INT32 = 2**31 - 1
#: Seconds of a google.protobuf.Duration.
_LONGEST_DURATION = 315_576_000_000
_DURATION = re.compile(r"(\d+)(\.\d{1,9})?s")

ACCELERATOR_TYPES = (
    "NVIDIA_TESLA_K80", "NVIDIA_TESLA_P100", "NVIDIA_TESLA_V100", "NVIDIA_TESLA_P4", "NVIDIA_TESLA_T4",
    "NVIDIA_TESLA_A100", "NVIDIA_A100_80GB", "NVIDIA_L4", "NVIDIA_H100_80GB", "NVIDIA_H100_MEGA_80GB",
    "NVIDIA_H200_141GB", "NVIDIA_B200", "NVIDIA_GB200", "NVIDIA_RTX_PRO_6000",
    "TPU_V2", "TPU_V3", "TPU_V4_POD", "TPU_V5_LITEPOD",
)  # fmt: skip
_STRATEGIES = ("STANDARD", "SPOT", "FLEX_START", "ON_DEMAND", "LOW_COST")
_AFFINITIES = ("NO_RESERVATION", "ANY_RESERVATION", "SPECIFIC_RESERVATION")


def check_request(job: Mapping[str, Any]) -> None:
    """Check a CustomJob.

    :raises JobRefusedError: naming the field, its value and what is allowed.
    """
    for problem in _CUSTOM_JOB(job, "CustomJob"):
        raise JobRefusedError(problem)


def is_of_labels(character: str) -> bool:
    """Whether a label may have this character: small letters of any script, digits, ``_`` and ``-``."""
    return character in "_-" or unicodedata.category(character) in ("Ll", "Lo", "Nd", "Nl", "No")


def _message(required: tuple[str, ...] = (), **fields: Rule) -> Rule:
    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{where}={value!r}: must be an object with {', '.join(fields)}."
            return
        for name in value:
            if name not in fields:
                near = did_you_mean(str(name), fields)
                yield f"{where}.{name}: Vertex AI knows no such field.{near} It knows: {', '.join(fields)}."
        for name in required:
            if name not in value:
                yield f"{where}.{name}: this field is required."
        for name, rule in fields.items():
            if name in value:
                yield from rule(value[name], f"{where}.{name}")

    return check


def _list(item: Rule, most: int | None = None) -> Rule:
    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{where}={value!r}: must be a list."
            return
        if most is not None and len(value) > most:
            yield f"{where} has {len(value)} items: at most {most} are allowed."
        for number, one in enumerate(value):
            yield from item(one, f"{where}[{number}]")

    return check


def _text(pattern: str = "", longest: int = 0, allowed: tuple[str, ...] = ()) -> Rule:
    compiled = re.compile(pattern, re.DOTALL)

    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{where}={value!r}: must be text."
        elif not _is_unicode(value):
            yield f"{where}={value!r}: is not valid Unicode."
        elif allowed and value not in allowed:
            yield f"{where}={value!r}: Vertex AI knows no such value.{did_you_mean(value, allowed)} Allowed: " + (
                ", ".join(allowed) + "."
            )
        elif longest and len(value.encode()) > longest:
            yield f"{where} has {len(value.encode())} bytes: at most {longest} are allowed."
        elif pattern and not compiled.fullmatch(value):
            yield f"{where}={value!r}: must match {pattern}."

    return check


def _whole(least: int, most: int = _INT32) -> Rule:
    def check(value: Any, where: str) -> Iterator[str]:
        number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value) else value
        if isinstance(number, bool) or not isinstance(number, int):
            yield f"{where}={value!r}: must be a whole number."
        elif not least <= number <= most:
            yield f"{where}={value!r}: must be from {least} to {most}."

    return check


def _flag(value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{where}={value!r}: must be true or false."


def _duration(value: Any, where: str) -> Iterator[str]:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[1]) > _LONGEST_DURATION:
        yield f"{where}={value!r}: must be seconds such as '3600s', at most '{_LONGEST_DURATION}s'."


def _labels(value: Any, where: str) -> Iterator[str]:
    if len(value) > _MOST_LABELS:
        yield f"{where} has {len(value)} entries: at most {_MOST_LABELS} are allowed."
    for key, text in value.items():
        if not key or not key[0].isalpha():
            yield f"{where}: the key {key!r} must begin with a letter."
        for what, one in (("key", key), (f"value of {key!r},", text)):
            wrong = sorted({character for character in one if not is_of_labels(character)})
            if wrong:
                yield (
                    f"{where}: the {what} {one!r} has {', '.join(map(repr, wrong))}: small letters, digits, '_' and "
                    "'-' are allowed."
                )
            if len(one) > LONGEST_LABEL:
                yield f"{where}: the {what} {one!r} has {len(one)} characters: at most {LONGEST_LABEL} are allowed."


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


_ANY = _text()
_SOME = _text(".+")

_POOL = _message(
    required=("machineSpec", "replicaCount", "containerSpec"),
    machineSpec=_message(
        required=("machineType",),
        machineType=_SOME,
        acceleratorType=_text(allowed=ACCELERATOR_TYPES),
        acceleratorCount=_whole(1),
        tpuTopology=_ANY,
        gpuPartitionSize=_ANY,
        reservationAffinity=_message(
            required=("reservationAffinityType",),
            reservationAffinityType=_text(allowed=_AFFINITIES),
            key=_ANY,
            values=_list(_ANY),
        ),
    ),
    replicaCount=_whole(1, 2**63 - 1),
    containerSpec=_message(
        required=("imageUri",),
        imageUri=_SOME,
        command=_list(_ANY),
        args=_list(_ANY),
        env=_list(
            _message(
                required=("name", "value"),
                name=_text("[A-Za-z_][A-Za-z0-9_]*", 1000),
                value=_text("[^\x00]*", LONGEST_VALUE),
            ),
            100,
        ),
    ),
    diskSpec=_message(
        bootDiskType=_text(allowed=("pd-ssd", "pd-standard", "hyperdisk-balanced")), bootDiskSizeGb=_whole(1)
    ),
    nfsMounts=_list(
        _message(required=("server", "path", "mountPoint"), server=_SOME, path=_text("/.*"), mountPoint=_SOME)
    ),
    lustreMounts=_list(
        _message(
            required=("instanceIp", "volumeHandle", "filesystem", "mountPoint"),
            instanceIp=_SOME,
            volumeHandle=_SOME,
            filesystem=_SOME,
            mountPoint=_SOME,
        )
    ),
)

_CUSTOM_JOB = _message(
    required=("displayName", "jobSpec"),
    displayName=_text(".+", 128),
    labels=_labels,
    encryptionSpec=_message(required=("kmsKeyName",), kmsKeyName=_SOME),
    jobSpec=_message(
        required=("workerPoolSpecs",),
        workerPoolSpecs=_list(_POOL, 4),
        scheduling=_message(
            timeout=_duration,
            restartJobOnWorkerRestart=_flag,
            strategy=_text(allowed=_STRATEGIES),
            disableRetries=_flag,
            maxWaitDuration=_duration,
        ),
        serviceAccount=_ANY,
        network=_ANY,
        reservedIpRanges=_list(_SOME),
        pscInterfaceConfig=_message(
            networkAttachment=_ANY,
            dnsPeeringConfigs=_list(
                _message(
                    required=("domain", "targetProject", "targetNetwork"),
                    domain=_text(r".+\."),
                    targetProject=_SOME,
                    targetNetwork=_SOME,
                )
            ),
        ),
        baseOutputDirectory=_message(required=("outputUriPrefix",), outputUriPrefix=_text("gs://.+")),
        protectedArtifactLocationId=_ANY,
        tensorboard=_ANY,
        enableWebAccess=_flag,
        enableDashboardAccess=_flag,
        experiment=_ANY,
        experimentRun=_ANY,
        models=_list(_SOME),
        persistentResourceId=_ANY,
    ),
)
