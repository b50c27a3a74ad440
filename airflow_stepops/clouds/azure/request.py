"""The request for one attempt of a step: the body of ``PUT …/jobs/<name>``, a JobBase with a CommandJob."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_stepops.clouds.azure.machines import instance_type
from airflow_stepops.clouds.azure.step_operator import TAG, AzureMLStepOperator
from airflow_stepops.errors import JobRefusedError
from airflow_stepops.jobs.protocol import JobRequest
from airflow_stepops.runtime.spec import COMMAND, spec_variables

#: Schemes of URIs of Blob Storage.
_OF_AZURE = ("az://", "abfs://", "abfss://")
#: Bytes of a variable's value: Linux starts no program with a variable of more than 131,072, its name included.
LONGEST_VALUE = 130_000
_TIERS = {"dedicated": "Standard", "spot": "Spot"}
_IDENTITIES = {"managed": "Managed", "user": "UserIdentity", "token": "AMLToken"}
_PRIORITIES = {"low": 1, "medium": 2, "high": 3}
#: The shell gives its place to the runtime, so that it is the runtime that is asked to stop. Azure ML begins in a
#: folder of its own.
_IN_SHELL = f"cd /opt/stepops/code 2>/dev/null; exec {' '.join(COMMAND)}"
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")


def create_request(
    request: JobRequest, settings: AzureMLStepOperator, workspace: str, environment: str
) -> dict[str, Any]:
    """Return the body.

    :param workspace: resource id of the workspace.
    :param environment: resource id of the environment version that is the image.
    :raises JobRefusedError: if a job of Azure ML cannot do what is asked for.
    """
    if not request.artifact_root.startswith(_OF_AZURE):
        raise JobRefusedError(
            f"a job of Azure ML cannot reach the artifact store {request.artifact_root}: give the stack an "
            "artifact_store of flavor 'azure-blob'."
        )
    unknown = [f"{name}={reference!r}" for name, reference in request.secrets.items() if reference.startswith("env:")]
    if unknown:
        raise JobRefusedError(
            f"secret {', '.join(unknown)}: Azure ML has no place for a secret's value in a job. Keep it in Key Vault, "
            "and let the step read it there as the job's identity."
        )
    made = {
        "jobType": "Command",
        "displayName": _display_name(request),
        "experimentName": settings.experiment_name or _name(request.attempt.dag_id),
        "command": _IN_SHELL,
        "environmentId": environment,
        "environmentVariables": {
            **_identity_variables(settings.identity),
            **settings.environment,
            **request.environment,
            **spec_variables(request.spec_uri, LONGEST_VALUE),
        },
        "identity": _identity(settings.identity),
        "limits": {"jobLimitsType": "Command", "timeout": f"PT{request.timeout or settings.timeout}S"},
        "resources": _resources(request, settings),
        "tags": _tags(request, settings),
        **_without_empty(
            {
                "computeId": settings.compute_name and f"{workspace}/computes/{settings.compute_name}",
                "queueSettings": _queue(request, settings),
                "distribution": _distribution(settings),
                "properties": settings.properties,
            }
        ),
    }
    return {"properties": _merged(made, settings.extra)}


def _resources(request: JobRequest, settings: AzureMLStepOperator) -> dict[str, Any]:
    asked = {name: value for name, value in request.resources.items() if name != "spot"}
    machine = None if settings.compute_name else instance_type(asked, settings.instance_type)
    return {
        "instanceCount": settings.instance_count,
        **_without_empty({"instanceType": machine, "shmSize": settings.shm_size, "dockerArgs": settings.docker_args}),
    }


def _queue(request: JobRequest, settings: AzureMLStepOperator) -> dict[str, Any]:
    spot = bool(request.resources.get("spot"))
    if spot and settings.compute_name:
        raise JobRefusedError(
            f"Resources(spot=True): the cluster {settings.compute_name!r} itself says whether its machines may be "
            "taken away. Choose one that has such machines and leave spot out, or leave compute_name out."
        )
    tier = None if settings.compute_name else _TIERS["spot" if spot else settings.tier]
    # The published models of this version have lost ``priority``; azure-ai-ml sends it so, as a number.
    return _without_empty({"jobTier": tier, "priority": settings.priority and _PRIORITIES[settings.priority]})


def _distribution(settings: AzureMLStepOperator) -> dict[str, Any]:
    """Return how machines are told of each other; without it they are told too little to know which is the first."""
    if settings.instance_count == 1:
        return {}
    kind = settings.distribution or "PyTorch"
    if kind == "TensorFlow":
        return {"distributionType": kind, "workerCount": settings.instance_count, "parameterServerCount": 0}
    return {"distributionType": "Mpi" if kind == "MPI" else kind, "processCountPerInstance": 1}


def _identity(identity: str) -> dict[str, str]:
    if identity in _IDENTITIES:
        return {"identityType": _IDENTITIES[identity]}
    return {"identityType": "Managed", "clientId": identity}


def _identity_variables(identity: str) -> dict[str, str]:
    """Return what tells the libraries in the job which one of several identities it is."""
    return {} if identity in _IDENTITIES else {"AZURE_CLIENT_ID": identity}


def _tags(request: JobRequest, settings: AzureMLStepOperator) -> dict[str, str]:
    attempt = request.attempt
    ours = {
        "airflow_dag_id": attempt.dag_id,
        "airflow_run_id": attempt.run_id,
        "airflow_task_id": attempt.task_id,
        "airflow_map_index": str(attempt.map_index),
        "airflow_try_number": str(attempt.try_number),
    }
    return {**settings.tags, **ours, TAG: request.name}


def _display_name(request: JobRequest) -> str:
    """Return what people see in the studio."""
    attempt = request.attempt
    mapped = f" [{attempt.map_index}]" if attempt.map_index >= 0 else ""
    return f"{attempt.task_id}{mapped}, try {attempt.try_number}"


def _name(text: str) -> str:
    """Return text as a name of Azure ML."""
    name = _NOT_IN_A_NAME.sub("-", text)[:255]
    return name if name[:1].isalnum() else f"a{name}"[:255]


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, False, 0, [], {}, "")}


def _merged(made: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request with further fields: mappings are merged, all else replaces."""
    merged = dict(made)
    for key, value in extra.items():
        there = merged.get(key)
        merged[key] = _merged(there, value) if isinstance(there, dict) and isinstance(value, Mapping) else value
    return merged
