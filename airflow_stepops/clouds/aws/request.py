"""The request of CreateTrainingJob or CreateProcessingJob for one attempt of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_stepops.clouds.aws.instances import instance_for
from airflow_stepops.clouds.aws.step_operator import SageMakerStepOperator
from airflow_stepops.errors import JobRefusedError
from airflow_stepops.jobs.protocol import JobRequest
from airflow_stepops.runtime.spec import COMMAND, spec_variables

#: Longest value of a variable (botocore's model, ``TrainingEnvironmentValue`` and ``ProcessingEnvironmentValue``).
_LONGEST = {"training": 512, "processing": 256}
#: Seconds that spot may wait beyond the time that the job may run.
_SPOT_WAIT = 3600
_CHECKPOINTS = "/opt/ml/checkpoints"
_TAG_CHARACTER = re.compile(r"[^\w\s.:/=+\-@]")


def create_request(request: JobRequest, settings: SageMakerStepOperator, role: str) -> dict[str, Any]:
    """Return the request.

    :param role: ARN of the execution role.
    :raises JobRefusedError: if a job of this kind cannot do what is asked for.
    """
    if not request.artifact_root.startswith("s3://"):
        raise JobRefusedError(
            f"a SageMaker job cannot reach the artifact store {request.artifact_root}: give the stack an "
            "artifact_store of flavor 's3'."
        )
    unknown = [f"{name}={reference!r}" for name, reference in request.secrets.items() if reference.startswith("env:")]
    if unknown:
        raise JobRefusedError(
            f"secret {', '.join(unknown)}: SageMaker has no place for a secret's value in a job. Keep it in AWS "
            "Secrets Manager, and let the step read it there with the job's role."
        )
    build = _training if settings.job_type == "training" else _processing
    return _merged(build(request, settings, role), settings.extra)


def _training(request: JobRequest, settings: SageMakerStepOperator, role: str) -> dict[str, Any]:
    spot = settings.spot or bool(request.resources.get("spot"))
    longest = request.timeout or settings.max_runtime
    stopping = {"MaxRuntimeInSeconds": longest}
    if spot:
        stopping["MaxWaitTimeInSeconds"] = max(
            settings.max_wait or longest + (request.pending_timeout or _SPOT_WAIT), longest
        )
    return {
        "TrainingJobName": request.name,
        "RoleArn": role,
        "AlgorithmSpecification": _without_empty(
            {
                "TrainingImage": request.image,
                "TrainingInputMode": settings.input_mode,
                "ContainerEntrypoint": list(COMMAND),
                "MetricDefinitions": [{"Name": name, "Regex": regex} for name, regex in settings.metrics.items()],
            }
        ),
        "OutputDataConfig": _without_empty(
            {
                "S3OutputPath": settings.output_path or f"{request.artifact_root}/sagemaker",
                "KmsKeyId": settings.output_kms_key,
            }
        ),
        "ResourceConfig": _without_empty(
            {
                **_instances(request, settings),
                "VolumeSizeInGB": settings.volume_size,
                "VolumeKmsKeyId": settings.volume_kms_key,
                "KeepAlivePeriodInSeconds": settings.keep_alive,
            }
        ),
        "StoppingCondition": stopping,
        "Environment": _environment(request, settings),
        "Tags": _tags(request, settings),
        **_without_empty(
            {
                "InputDataConfig": [
                    {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}
                    for name, uri in settings.input_data.items()
                ],
                "VpcConfig": _vpc(settings),
                "EnableManagedSpotTraining": spot,
                "CheckpointConfig": {"S3Uri": _checkpoints(request), "LocalPath": _CHECKPOINTS} if spot else None,
                "EnableInterContainerTrafficEncryption": settings.encrypt_traffic,
                "RetryStrategy": {"MaximumRetryAttempts": settings.retry_attempts} if settings.retry_attempts else None,
                "ExperimentConfig": _experiment(settings),
            }
        ),
    }


def _processing(request: JobRequest, settings: SageMakerStepOperator, role: str) -> dict[str, Any]:
    if request.resources.get("spot"):
        raise JobRefusedError("Resources(spot=True): processing jobs of SageMaker know no spot. Use training jobs.")
    network = _without_empty(
        {"EnableInterContainerTrafficEncryption": settings.encrypt_traffic, "VpcConfig": _vpc(settings)}
    )
    return {
        "ProcessingJobName": request.name,
        "RoleArn": role,
        "AppSpecification": {"ImageUri": request.image, "ContainerEntrypoint": list(COMMAND)},
        "ProcessingResources": {
            "ClusterConfig": _without_empty(
                {
                    **_instances(request, settings),
                    "VolumeSizeInGB": settings.volume_size,
                    "VolumeKmsKeyId": settings.volume_kms_key,
                }
            )
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": request.timeout or settings.max_runtime},
        "Environment": _environment(request, settings),
        "Tags": _tags(request, settings),
        **_without_empty(
            {
                "ProcessingInputs": [
                    {
                        "InputName": name,
                        "S3Input": {
                            "S3Uri": uri,
                            "LocalPath": f"/opt/ml/input/data/{name}",
                            "S3DataType": "S3Prefix",
                            "S3InputMode": "File",
                        },
                    }
                    for name, uri in settings.input_data.items()
                ],
                "NetworkConfig": network,
                "ExperimentConfig": _experiment(settings),
            }
        ),
    }


def _instances(request: JobRequest, settings: SageMakerStepOperator) -> dict[str, Any]:
    if settings.instance_preferences:
        preferences = [{"InstanceType": name} for name in settings.instance_preferences]
        return {"InstancePreferences": preferences, "InstanceCount": settings.instance_count}
    resources = {name: value for name, value in request.resources.items() if name != "spot"}
    return {
        "InstanceType": instance_for(resources, settings.instance_type),
        "InstanceCount": settings.instance_count,
    }


def _environment(request: JobRequest, settings: SageMakerStepOperator) -> dict[str, str]:
    variables = spec_variables(request.spec_uri, _LONGEST[settings.job_type])
    return {**settings.environment, **request.environment, **variables}


def _tags(request: JobRequest, settings: SageMakerStepOperator) -> list[dict[str, str]]:
    attempt = request.attempt
    ours = {
        "airflow_dag_id": attempt.dag_id,
        "airflow_run_id": attempt.run_id,
        "airflow_task_id": attempt.task_id,
        "airflow_map_index": str(attempt.map_index),
        "airflow_try_number": str(attempt.try_number),
    }
    ours = {key: _TAG_CHARACTER.sub("_", value)[:256] for key, value in ours.items()}
    return [{"Key": key, "Value": value} for key, value in {**settings.tags, **ours}.items()]


def _vpc(settings: SageMakerStepOperator) -> dict[str, list[str]] | None:
    if not settings.subnets:
        return None
    return {"Subnets": settings.subnets, "SecurityGroupIds": settings.security_group_ids}


def _experiment(settings: SageMakerStepOperator) -> dict[str, Any]:
    return _without_empty({"ExperimentName": settings.experiment_name, "TrialName": settings.trial_name})


def _checkpoints(request: JobRequest) -> str:
    """Return a folder that outlives attempts, beside that of ``airflow_stepops.checkpoint_dir()``."""
    return f"{request.spec_uri.rsplit('/', 2)[0]}/checkpoints/sagemaker"


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, False, 0, [], {}, "")}


def _merged(request: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request with further fields: mappings are merged, all else replaces."""
    merged = dict(request)
    for key, value in extra.items():
        there = merged.get(key)
        merged[key] = _merged(there, value) if isinstance(there, dict) and isinstance(value, Mapping) else value
    return merged
