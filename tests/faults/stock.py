"""A task of Airflow's own ``SageMakerTrainingOperator(deferrable=True)`` on the journey of a step.

With the settings that it has when nobody changes them, but that it looks each second whether the job has ended. The job
is long enough to be waited for in the triggerer.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator
from airflow.providers.amazon.aws.triggers.sagemaker import SageMakerTrigger

from tests.clouds.aws.emulated import REGION
from tests.clouds.aws.sagemaker import ROLE
from tests.engines import Podman
from tests.faults import worker
from tests.faults.amazon import amazon
from tests.faults.journey import RETURNED, Place, Task

_CONNECTION = "line_to_aws"


@contextmanager
def stock(folder: Path, podman: Podman, registry: str, base_image: str) -> Iterator[Place]:
    """Make an emulated AWS, and prepare for journeys of a task that is Airflow's own.

    :param base_image: that the job runs.
    """
    with amazon(folder, podman, registry, base_image) as place:
        environment = place.environment | {"JOURNEY_IMAGE": base_image}
        yield dataclasses.replace(place, name="stock", environment=environment, task=Task(execute, wait, resume))


def execute(folder: Path, environment: dict[str, str], run_id: str, try_number: int) -> None:
    """Begin an attempt, and leave what its trigger is made of."""
    _set(environment)
    with worker.failing(folder, try_number):
        returned = worker.defer(_task(environment, run_id), folder, run_id, try_number)
        if returned is not None:
            _leave_result(folder, returned)


def wait(folder: Path, environment: dict[str, str], try_number: int) -> None:
    """Wait as a triggerer does, and leave the event."""
    _set(environment)
    arguments = json.loads((folder / "trigger").read_text())
    with worker.failing(folder, try_number):
        worker.leave(folder / "event", worker.first_event(SageMakerTrigger(**arguments)))


def resume(folder: Path, environment: dict[str, str], run_id: str, try_number: int) -> None:
    """Go on after the event."""
    _set(environment)
    event = json.loads((folder / "event").read_text())
    with worker.failing(folder, try_number):
        context = worker.context_of(folder, run_id, try_number)
        _leave_result(folder, _task(environment, run_id).execute_complete(context, event))


def _task(environment: dict[str, str], run_id: str) -> Any:
    config = {
        "TrainingJobName": f"journey-{run_id}",
        "AlgorithmSpecification": {
            "TrainingImage": environment["JOURNEY_IMAGE"],
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["sleep", "6"],
        },
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": "s3://journeys/output"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "Environment": {"STEP": worker.TASK},
        "Tags": [
            {"Key": "airflow_dag_id", "Value": worker.DAG},
            {"Key": "airflow_run_id", "Value": run_id},
        ],
    }
    return SageMakerTrainingOperator(
        task_id=worker.TASK,
        config=config,
        aws_conn_id=_CONNECTION,
        region_name=REGION,
        deferrable=True,
        check_interval=1,
    )


def _set(environment: dict[str, str]) -> None:
    """Let the process have its variables; a service that hangs is waited for as long as the connection says."""
    os.environ.update(environment)
    if "JOURNEY_ANSWER_SECONDS" in environment:
        name = f"AIRFLOW_CONN_{_CONNECTION.upper()}"
        connection = json.loads(environment[name])
        connection["extra"]["config_kwargs"] = {"read_timeout": float(environment["JOURNEY_ANSWER_SECONDS"])}
        os.environ[name] = json.dumps(connection)


def _leave_result(folder: Path, returned: dict[str, Any]) -> None:
    assert returned["Training"]["TrainingJobStatus"] == "Completed"
    worker.leave(folder / "returned", RETURNED)
