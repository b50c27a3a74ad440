"""Checks a command job before it is sent, so that what is wrong is said by field and before anything is made.

The fields and enums are those of the REST API's version 2025-12-01, to which tests hold them through Microsoft's own
models; it ignores fields that it does not know, which is seldom what people mean.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from airflow_stepops.clouds.azure.request import LONGEST_VALUE
from airflow_stepops.errors import JobRefusedError, did_you_mean

Some = Annotated[str, StringConstraints(pattern="[a-zA-Z0-9_]")]
Name = Annotated[str, StringConstraints(pattern="^[a-zA-Z0-9][a-zA-Z0-9_-]*$", max_length=255)]
Variable = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]
#: Linux has no variables and arguments with a zero in them.
Value = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=LONGEST_VALUE)]
Duration = Annotated[
    str, StringConstraints(pattern=r"^P(\d+D)?(T(\d+H)?(\d+M)?\d+S|T(\d+H)?\d+M|T\d+H)?$", min_length=3)
]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _Identity(_Document):
    identity_type: Literal["Managed", "AMLToken", "UserIdentity"]
    client_id: str | None = None
    object_id: str | None = None
    resource_id: str | None = None


class _Limits(_Document):
    job_limits_type: Literal["Command"]
    timeout: Duration | None = None


class _Resources(_Document):
    instance_count: Count | None = None
    instance_type: Some | None = None
    docker_args: str | None = None
    docker_args_list: list[str] | None = None
    shm_size: Annotated[str, StringConstraints(pattern=r"^\d+[bBkKmMgG]$")] | None = None
    properties: dict[str, Any] | None = None


class _QueueSettings(_Document):
    job_tier: Literal["Null", "Spot", "Basic", "Standard", "Premium"] | None = None
    priority: Annotated[int, Field(ge=1, le=3)] | None = None


class _Distribution(_Document):
    distribution_type: Literal["PyTorch", "TensorFlow", "Mpi"]
    process_count_per_instance: Count | None = None
    parameter_server_count: Annotated[int, Field(ge=0)] | None = None
    worker_count: Count | None = None


_Kind = Literal["uri_file", "uri_folder", "mltable", "custom_model", "mlflow_model", "triton_model"]


class _Input(_Document):
    job_input_type: Literal["literal"] | _Kind
    description: str | None = None
    mode: Literal["ReadOnlyMount", "ReadWriteMount", "Download", "Direct", "EvalMount", "EvalDownload"] | None = None
    uri: Some | None = None
    value: str | None = None


class _Output(_Document):
    job_output_type: _Kind
    asset_name: str | None = None
    description: str | None = None
    mode: Literal["ReadWriteMount", "Upload", "Direct"] | None = None
    uri: str | None = None


class _Nodes(_Document):
    nodes_value_type: Literal["All"]


class _Service(_Document):
    job_service_type: str | None = None
    endpoint: str | None = None
    nodes: _Nodes | None = None
    port: int | None = None
    properties: dict[str, str] | None = None


class _Notification(_Document):
    email_on: list[Literal["JobCompleted", "JobFailed", "JobCancelled"]] | None = None
    emails: list[str] | None = None
    webhooks: dict[str, dict[str, str]] | None = None


class CommandJob(_Document):
    """What can be said of a command job."""

    job_type: Literal["Command"]
    command: Some
    environment_id: Some
    code_id: str | None = None
    component_id: str | None = None
    compute_id: str | None = None
    description: str | None = None
    display_name: str | None = None
    distribution: _Distribution | None = None
    environment_variables: dict[Variable, Value] | None = None
    experiment_name: Name | None = None
    identity: _Identity | None = None
    inputs: dict[str, _Input] | None = None
    is_archived: bool | None = None
    limits: _Limits | None = None
    notification_setting: _Notification | None = None
    outputs: dict[str, _Output] | None = None
    properties: dict[str, str] | None = None
    queue_settings: _QueueSettings | None = None
    resources: _Resources | None = None
    services: dict[str, _Service] | None = None
    tags: dict[str, str] | None = None


class _Job(_Document):
    properties: CommandJob


def check_request(job: Mapping[str, Any]) -> None:
    """Check the body of a request that makes a job.

    :raises JobRefusedError: naming the field, its value and what is allowed.
    """
    try:
        _Job.model_validate(job)
    except ValidationError as error:
        raise JobRefusedError(_said(error)) from None


def _said(error: ValidationError) -> str:
    found = error.errors(include_url=False)
    first = next((item for item in found if item["type"] == "extra_forbidden"), found[0])
    path = ".".join(["CommandJob", *(str(part) for part in first["loc"][1:] if part != "[key]")])
    if first["type"] == "extra_forbidden":
        known = _fields(first["loc"][:-1])
        near = did_you_mean(str(first["loc"][-1]), known)
        return f"{path}: Azure ML knows no such field.{near} It knows: {', '.join(known)}."
    if first["type"] == "missing":
        return f"{path}: this field is required."
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}={reprlib.repr(first['input'])} is not allowed: {message[0].lower()}{message[1:]}."


def _fields(place: tuple[int | str, ...]) -> list[str]:
    """Return the names of the fields at a place of the document."""
    schema = _Job.model_json_schema()
    here = schema
    for part in place:
        here = here.get("properties", {}).get(part, here.get("additionalProperties", {}))
        for one in (here, *here.get("anyOf", ())):
            if "$ref" in one:
                here = schema["$defs"][one["$ref"].rpartition("/")[2]]
    return sorted(here.get("properties", {}))
