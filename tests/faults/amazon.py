"""Journeys to the emulated AWS."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import yaml

from tests.clouds.aws.ecr_front import EcrFront
from tests.clouds.aws.emulated import REGION, EmulatedAws
from tests.clouds.aws.sagemaker import ROLE, SageMaker
from tests.faults.journey import STEP, Line, LineProxy, Place
from tests.faults.worker import DAG
from tests.images.faults import faulty_proxy

KEY = "AKIAWORKEROFJOURNEYS"
_STATES = {"Completed": "succeeded", "Failed": "failed", "Stopped": "stopped"}


def _is_airflow(headers: Mapping[str, str]) -> bool:
    authorization = headers.get("Authorization", "")
    if authorization.startswith("AWS4"):
        return f"Credential={KEY}/" in authorization
    return headers.get("User-Agent", "").startswith(("airflow-stepops", "python-httpx"))


def _expired(headers: Mapping[str, str]) -> tuple[int, bytes]:
    said = "The security token included in the request is expired"
    if "X-Amz-Target" in headers:
        return 400, json.dumps({"__type": "ExpiredTokenException", "message": said}).encode()
    if headers.get("Authorization", "").startswith("Basic"):
        return 403, b'{"errors": [{"code": "DENIED", "message": "Your authorization token has expired."}]}'
    return 400, f"<Error><Code>ExpiredToken</Code><Message>{said}</Message></Error>".encode()


@contextmanager
def amazon(aws: EmulatedAws, emulated: SageMaker, registry: str, base_image: str, folder: Path) -> Iterator[Place]:
    """Prepare for journeys.

    :param folder: for the DAG and the stack file.
    """
    line = Line()
    kind = partial(LineProxy, line=line, is_airflow=_is_airflow, expired=_expired)
    bucket = f"journeys-{uuid.uuid4().hex}"
    aws.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    with ExitStack() as proxies:
        services = proxies.enter_context(faulty_proxy(aws.url.removeprefix("http://"), kind=kind))
        images = proxies.enter_context(faulty_proxy(registry, EcrFront(aws, registry), kind))
        (folder / "dags").mkdir()
        (folder / "dags" / "journey.py").write_text(STEP)
        stack = {
            "version": 1,
            "artifact_stores": {"values": {"flavor": "s3", "bucket": bucket, "region": REGION, "connection": "line"}},
            "container_registries": {"images": {"flavor": "ecr", "uri": f"{images.host}/j", "connection": "line"}},
            "step_operators": {
                "training": {"flavor": "sagemaker", "role": ROLE, "connection": "line", "base_image": base_image}
            },
            "stacks": {
                "faulty": {
                    "artifact_store": "values",
                    "container_registry": "images",
                    "step_operators": ["training"],
                }
            },
        }
        (folder / "stepops.yaml").write_text(yaml.safe_dump(stack))
        extra = {"region_name": REGION, "endpoint_url": f"http://{services.host}"}
        connection = {"conn_type": "aws", "login": KEY, "password": "secret", "extra": extra}
        environment = {
            "JOURNEY_SERVICE": "airflow_stepops.clouds.aws.service:SageMakerJobService",
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW_CONN_LINE": json.dumps(connection),
            "STEPOPS_CONFIG": str(folder / "stepops.yaml"),
            "STEPOPS_HOME": str(folder / "home"),
        }
        yield Place("aws", environment, line, partial(_jobs, emulated))


def _jobs(emulated: SageMaker, run_id: str) -> dict[str, str]:
    found = {}
    for job in list(emulated.jobs.values()):
        tags = {tag["Key"]: tag["Value"] for tag in job.request["Tags"]}
        if (tags["airflow_dag_id"], tags["airflow_run_id"]) == (DAG, run_id):
            found[job.name] = _STATES.get(job.status, "running")
    return found
