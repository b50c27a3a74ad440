"""Journeys to the emulated AWS."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.clouds.aws.ecr_front import EcrFront
from tests.clouds.aws.emulated import REGION, emulated_aws
from tests.clouds.aws.sagemaker import ROLE, SageMaker, emulated_sagemaker
from tests.engines import Podman
from tests.faults.journey import Line, LineProxy, Place, environment, lay_out
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
def amazon(folder: Path, podman: Podman, registry: str, base_image: str) -> Iterator[Place]:
    """Make an emulated AWS, and prepare for journeys to it.

    :param folder: for the DAG and the stack file.
    """
    line = Line()
    kind = partial(LineProxy, line=line, is_airflow=_is_airflow, expired=_expired)
    bucket = f"journeys-{uuid.uuid4().hex}"
    with ExitStack() as running:
        aws = running.enter_context(emulated_aws())
        emulated = running.enter_context(emulated_sagemaker(aws, podman))
        aws.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        services = running.enter_context(faulty_proxy(aws.url.removeprefix("http://"), kind=kind))
        images = running.enter_context(faulty_proxy(registry, EcrFront(aws, registry), kind))
        lay_out(
            folder,
            "line_to_aws",
            {"flavor": "s3", "bucket": bucket, "region": REGION},
            {"flavor": "ecr", "uri": f"{images.host}/j"},
            {"flavor": "sagemaker", "role": ROLE, "base_image": base_image},
        )
        extra = {"region_name": REGION, "endpoint_url": f"http://{services.host}"}
        connection = {"conn_type": "aws", "login": KEY, "password": "secret", "extra": extra}
        service = "airflow_stepops.clouds.aws.service:SageMakerJobService"
        yield Place(
            "aws",
            environment(folder, "line_to_aws", connection, service),
            line,
            partial(_jobs, emulated),
            create="#CreateTrainingJob$",
        )


def _jobs(emulated: SageMaker, run_id: str) -> dict[str, str]:
    found = {}
    for job in list(emulated.jobs.values()):
        tags = {tag["Key"]: tag["Value"] for tag in job.request["Tags"]}
        if (tags["airflow_dag_id"], tags["airflow_run_id"]) == (DAG, run_id):
            found[job.name] = _STATES.get(job.status, "running")
    return found
