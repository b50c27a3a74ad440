"""An emulated AWS that is reached through Airflow connections alone."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.clouds.aws.ecr_front import EcrFront
from tests.clouds.aws.emulated import ACCESS_KEY, REGION, SECRET_KEY, EmulatedAws, emulated_aws
from tests.clouds.aws.sagemaker import ROLE, SageMaker, emulated_sagemaker
from tests.engines import Podman
from tests.images.faults import FaultyProxy, faulty_proxy

Connect = Callable[..., str]


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No keys, profiles and settings but those of a test; no service that gives a machine its role."""
    nowhere = tmp_path_factory.mktemp("aws") / "none"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", str(nowhere))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere))
        yield


@pytest.fixture(scope="session")
def aws() -> Iterator[EmulatedAws]:
    """The emulated AWS, the same one for all tests."""
    with emulated_aws() as running:
        yield running


@pytest.fixture
def connect(aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Add an Airflow connection to the emulated AWS: ``connect(login=…, password=…, **extra)`` returns its id."""

    def add(login: str | None = ACCESS_KEY, password: str | None = SECRET_KEY, **extra: Any) -> str:
        name = f"aws_{uuid.uuid4().hex}"
        places = {"endpoint_url": aws.url, "service_config": {"sts": {"endpoint_url": aws.url}}}
        connection = {
            "conn_type": "aws",
            "login": login,
            "password": password,
            "extra": {"region_name": REGION, **places, **extra},
        }
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
        return name

    return add


@pytest.fixture
def connection(connect: Connect) -> str:
    """Id of an Airflow connection to the emulated AWS."""
    return connect()


@pytest.fixture
def ecr(aws: EmulatedAws, registry: str) -> Iterator[FaultyProxy]:
    """The registry that belongs to the emulated ECR, at ``ecr.host``; its requests are seen, and may be broken."""
    with faulty_proxy(registry, EcrFront(aws, registry)) as front:
        yield front


@pytest.fixture(scope="session")
def emulated(aws: EmulatedAws, podman: Podman) -> Iterator[SageMaker]:
    """SageMaker in the emulated AWS."""
    with emulated_sagemaker(aws, podman) as running:
        yield running


@pytest.fixture(scope="session")
def images(aws: EmulatedAws, registry: str) -> Iterator[FaultyProxy]:
    with faulty_proxy(registry, EcrFront(aws, registry)) as front:
        yield front


@pytest.fixture(scope="session")
def bucket(aws: EmulatedAws) -> str:
    name = f"pipeline-{uuid.uuid4().hex}"
    aws.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


@pytest.fixture(scope="session")
def airflow_settings(
    aws: EmulatedAws,
    emulated: SageMaker,
    images: FaultyProxy,
    bucket: str,
    base_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What makes the stack ``aws`` of the examples the emulated one: variables of Airflow's processes."""
    jobs = {"flavor": "sagemaker", "role": ROLE, "connection": "emulated_aws", "base_image": base_image}
    stack = {
        "version": 1,
        "artifact_stores": {
            "s3": {"flavor": "s3", "bucket": bucket, "prefix": "team", "connection": "emulated_aws"},
        },
        "container_registries": {
            "ecr": {"flavor": "ecr", "uri": f"{images.host}/team", "connection": "emulated_aws"},
        },
        "step_operators": {"training": jobs, "processing": {**jobs, "job_type": "processing"}},
        "stacks": {
            "aws": {
                "artifact_store": "s3",
                "container_registry": "ecr",
                "step_operators": ["training", "processing"],
            }
        },
    }
    file = tmp_path_factory.mktemp("aws") / "stepops.yaml"
    file.write_text(yaml.safe_dump(stack))
    extra = {"region_name": REGION, "endpoint_url": aws.url}
    connection = {"conn_type": "aws", "login": ACCESS_KEY, "password": SECRET_KEY, "extra": extra}
    return {"STEPOPS_CONFIG": str(file), "AIRFLOW_CONN_EMULATED_AWS": json.dumps(connection)}
