"""The printed IAM policies allow what is really called, and nothing else."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given

from airflow_stepops.clouds.aws.artifact_store import S3ArtifactStore
from airflow_stepops.clouds.aws.container_registry import EcrContainerRegistry
from airflow_stepops.clouds.aws.step_operator import SageMakerStepOperator
from airflow_stepops.errors import ArtifactNotFoundError
from tests.cli.conftest import Said, Stepops, folder, stepops  # noqa: F401 - the fixtures
from tests.clouds.aws.emulated import REGION, EmulatedAws
from tests.clouds.aws.iam import allows
from tests.clouds.aws.sagemaker import ACCOUNT, ROLE, SageMaker
from tests.clouds.ground import Ground, build_image, ended, running
from tests.clouds.rights_of_jobs import ELSEWHERE, INSTANCE, KEPT, WRITTEN, PolicedJob
from tests.engines import BASE_PYTHON
from tests.images.faults import FaultyProxy
from tests.runtime.conftest import StepImage, image, runtime_layer  # noqa: F401 - the fixtures

WORKER_KEY = "AKIAWORKEROFTHISTEST"
JOB_KEY = "AKIAJOBOFTHISTEST000"
#: Rights that the calls of a run do not show: rare ones, and those that go with others.
WITHOUT_A_CALL = {
    "iam:PassRole": "asked for by CreateTrainingJob",
    "sagemaker:AddTags": "asked for by CreateTrainingJob, which gives tags",
    "s3:AbortMultipartUpload": "after a large upload that broke",
    "ecr:BatchCheckLayerAvailability": "HEAD of a blob",
    "ecr:BatchGetImage": "GET of a manifest",
    "ecr:GetDownloadUrlForLayer": "GET of a blob",
    "ecr:InitiateLayerUpload": "POST of a blob",
    "ecr:UploadLayerPart": "PATCH of a blob",
    "ecr:CompleteLayerUpload": "PUT of a blob",
    "ecr:PutImage": "PUT of a manifest",
}


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    bucket = f"permissions-{uuid.uuid4().hex}"
    return {
        "operator": SageMakerStepOperator(name="training", role=ROLE, region=REGION),
        "artifact_store": S3ArtifactStore(bucket=bucket, prefix="team"),
        "container_registry": EcrContainerRegistry(uri=f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/team"),
    }


def documents(stack: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    operator = stack["operator"].overridden(settings)
    return dict(operator.permissions(stack["artifact_store"], stack["container_registry"]))


def actions(policy: Mapping[str, Any]) -> set[str]:
    return {action for statement in policy["Statement"] for action in statement["Action"]}


def rights(call: str) -> Iterator[tuple[str, str]]:
    """Return the actions of a call, each with its resource."""
    method, _, path = call.partition(" ")
    if path:
        bucket, _, key = path.strip("/").partition("/")
        action = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
        if method == "POST":  # several objects at once are deleted so
            yield "s3:DeleteObject", f"arn:aws:s3:::{bucket}/team/any"
        elif key:
            yield f"s3:{action[method]}", f"arn:aws:s3:::{bucket}/{key}"
        else:
            yield "s3:ListBucket", f"arn:aws:s3:::{bucket}"
    elif call == "GetAuthorizationToken":
        yield "ecr:GetAuthorizationToken", "*"
    elif call == "CreateRepository":
        yield "ecr:CreateRepository", f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/stepops"
    elif call.startswith("List"):
        yield f"sagemaker:{call}", "*"
    elif call.endswith("Job"):
        yield f"sagemaker:{call}", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/any"
    elif call == "GetRole":
        yield "iam:GetRole", ROLE
    else:
        group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs"
        yield f"logs:{call}", group if call == "DescribeLogStreams" else f"{group}:log-stream:any"


@pytest.fixture(scope="module")
def called(
    aws: EmulatedAws,
    emulated: SageMaker,
    images: FaultyProxy,
    base_image: str,
    stack: dict[str, Any],
    at_home: pytest.MonkeyPatch,
) -> set[tuple[str, str]]:
    """What a worker and a triggerer have called from the first build to the end of two jobs."""
    bucket = stack["artifact_store"].bucket
    aws.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    extra = {"region_name": REGION, "endpoint_url": aws.url}
    connection = {"conn_type": "aws", "login": WORKER_KEY, "password": "secret", "extra": extra}
    at_home.setenv("AIRFLOW_CONN_WORKER_AWS", json.dumps(connection))
    values = stack["artifact_store"].overridden({"connection": "worker_aws"})
    operator = stack["operator"].overridden({"connection": "worker_aws", "base_image": base_image})
    repository = EcrContainerRegistry(uri=f"{images.host}/team", repository="least", connection="worker_aws").open()
    ground = Ground(
        connect=operator.connect,
        kill=lambda _: None,
        repository=repository,
        image=build_image(repository, base_image, python=BASE_PYTHON),
        store=values.open(),
    )
    service = ground.connect()
    done = ground.request("add", 1, 2, environment=values.job_environment())
    stopped = ground.request("wait", environment=values.job_environment())
    for request in (done, stopped):
        service.submit(request)
    ended(service, done.name)
    assert ground.value(done) == 3
    running(service, stopped.name)
    service.changed(0)
    service.cancel(stopped.name)
    ended(service, stopped.name)
    ground.store.put_if_absent(f"{ground.store.root}/team-file", b"x")
    ground.store.list(f"{ground.store.root}/runs")
    ground.store.delete(f"{ground.store.root}/team-file")
    with pytest.raises(ArtifactNotFoundError):
        ground.store.get(f"{ground.store.root}/nothing")
    by_worker = [call for call, (key, _) in zip(aws.calls, aws.signed_with, strict=True) if key == WORKER_KEY]
    assert len(by_worker) > 20
    return {right for call in by_worker for right in rights(re.sub(r"\?.*", "", call))}


def test_every_call_of_the_worker_is_allowed(called: set[tuple[str, str]], stack: dict[str, Any]) -> None:
    policy = documents(stack)["worker"]
    assert [right for right in sorted(called) if not allows(policy, *right)] == []


def test_nothing_is_allowed_that_is_not_called(called: set[tuple[str, str]], stack: dict[str, Any]) -> None:
    allowed = actions(documents(stack)["worker"])
    assert sorted(allowed - {action for action, _ in called} - WITHOUT_A_CALL.keys()) == []


def test_a_role_that_is_given_by_its_arn_alone_may_be_passed_and_only_to_sagemaker(stack: dict[str, Any]) -> None:
    passing = next(one for one in documents(stack)["worker"]["Statement"] if one["Action"] == ["iam:PassRole"])
    assert passing["Resource"] == [ROLE]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


@pytest.mark.parametrize(
    ("settings", "document", "added"),
    [
        ({"role": "training"}, "worker", {"iam:GetRole"}),
        ({"input_data": {"raw": "s3://raw/2026"}}, "job", set()),
        ({"subnets": ["subnet-1"], "security_group_ids": ["sg-1"]}, "job", {"ec2:CreateNetworkInterface"}),
        ({"volume_kms_key": "alias/disks"}, "job", {"kms:CreateGrant"}),
        ({"output_kms_key": "1234"}, "job", {"kms:Encrypt"}),
    ],
)
def test_a_setting_adds_what_it_needs(
    stack: dict[str, Any], settings: dict[str, Any], document: str, added: set[str]
) -> None:
    usual, more = documents(stack), documents(stack, **settings)
    assert more[document] != usual[document]
    assert added <= actions(more[document])
    assert not added & actions(usual[document])


def test_the_job_may_read_its_image_and_not_write_one(stack: dict[str, Any]) -> None:
    job = actions(documents(stack)["job"])
    assert "ecr:BatchGetImage" in job
    assert "ecr:PutImage" not in job
    assert not any(action.startswith("sagemaker:") for action in job)


@pytest.fixture
def job(
    aws: EmulatedAws,
    stack: dict[str, Any],
    image: StepImage,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> PolicedJob:
    """A job that has the rights of the printed policy and no others."""
    bucket = f"rights-{uuid.uuid4().hex}"
    aws.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    extra = {"region_name": REGION, "endpoint_url": aws.url}
    connection = {"conn_type": "aws", "login": WORKER_KEY, "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_WORKER_AWS", json.dumps(connection))
    store = S3ArtifactStore(bucket=bucket, prefix="team", region=REGION, connection="worker_aws")
    policies = {**stack, "artifact_store": store}
    monkeypatch.setitem(aws.policies, WORKER_KEY, documents(policies)["worker"])
    monkeypatch.setitem(aws.policies, JOB_KEY, documents(policies)["job"])
    keys = {"AWS_ACCESS_KEY_ID": JOB_KEY, "AWS_SECRET_ACCESS_KEY": "secret"}
    return PolicedJob(image, store.open(), {**store.job_environment(), **keys})


def test_a_job_works_with_the_rights_of_its_policy(job: PolicedJob) -> None:
    job.works()


def test_a_job_can_forge_nothing_of_what_airflow_writes(job: PolicedJob) -> None:
    job.forges_nothing()


_WRITING = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
_STACK = {
    "operator": SageMakerStepOperator(name="training", role=ROLE, region=REGION),
    "artifact_store": S3ArtifactStore(bucket="values", prefix="team"),
    "container_registry": EcrContainerRegistry(uri=f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/team"),
}
_POLICY = documents(_STACK)["job"]
#: SageMaker's own output goes to the top of the bucket, and so into the folders of all attempts.
_WIDEST = documents(_STACK, output_path="s3://values")["job"]


@given(path=KEPT)
def test_whatever_names_are_a_job_does_not_write_what_airflow_writes(path: str) -> None:
    key = f"arn:aws:s3:::values/team/{path}"
    assert not [action for action in _WRITING if allows(_POLICY, action, key) or allows(_WIDEST, action, key)]
    assert allows(_POLICY, "s3:GetObject", key)


@given(path=ELSEWHERE)
def test_a_job_writes_in_runs_alone_beside_what_sagemaker_itself_writes(path: str) -> None:
    is_output = re.fullmatch(r"sagemaker/.*/output/(model|output)\.tar\.gz", path) is not None
    key = f"arn:aws:s3:::values/team/{path}"
    assert [action for action in _WRITING if allows(_POLICY, action, key)] == (
        ["s3:PutObject", "s3:AbortMultipartUpload"] if is_output else []
    )


@given(path=WRITTEN)
def test_whatever_names_are_a_job_writes_what_is_its_own(path: str) -> None:
    assert allows(_POLICY, "s3:PutObject", f"arn:aws:s3:::values/team/{path}")
    is_checkpoint = "/checkpoints/machine-3/" in path
    assert allows(_POLICY, "s3:DeleteObject", f"arn:aws:s3:::values/team/{path}") == is_checkpoint


@pytest.mark.parametrize("name", ["checkpoints/sagemaker/epoch-1/model.pt", "checkpoints/sagemaker/attempt-1/job.json"])
def test_sagemaker_keeps_the_checkpoints_of_a_job_on_spot(name: str) -> None:
    assert allows(_POLICY, "s3:PutObject", f"arn:aws:s3:::values/team/{INSTANCE}/{name}")


def test_a_folder_of_the_bucket_that_looks_like_a_pattern_is_no_pattern() -> None:
    starred = documents({**_STACK, "artifact_store": S3ArtifactStore(bucket="values", prefix="*")})["job"]
    assert allows(starred, "s3:GetObject", "arn:aws:s3:::values/*/runs/a")
    assert not allows(starred, "s3:GetObject", "arn:aws:s3:::values/another/runs/a")


def test_the_policies_are_no_longer_than_iam_takes() -> None:
    settings: dict[str, Any] = {
        "input_data": {"raw": f"s3://{'r' * 63}/2026"},
        "output_path": f"s3://{'o' * 63}/models",
    }
    settings |= {"volume_kms_key": "alias/disks", "output_kms_key": "alias/output"}
    settings |= {"subnets": ["subnet-1"], "security_group_ids": ["sg-1"]}
    store = S3ArtifactStore(bucket="b" * 63, prefix="p" * 120, kms_key="alias/values")
    printed = documents({**_STACK, "artifact_store": store}, **settings)
    assert max(len(json.dumps(policy, separators=(",", ":"))) for policy in printed.values()) < 6144


def test_other_parts_of_aws_have_arns_of_their_own(stack: dict[str, Any]) -> None:
    china = {"role": "arn:aws-cn:iam::123456789012:role/training", "region": "cn-north-1"}
    resources = [
        resource
        for one in documents(stack, **china)["job"]["Statement"]
        for resource in one["Resource"]
        if resource != "*"
    ]
    assert all(resource.startswith("arn:aws-cn:") for resource in resources)


def test_the_command_prints_the_documents_of_each_step_operator(stepops: Stepops) -> None:  # noqa: F811
    registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    for words in (
        "artifact-store register values --flavor s3 --bucket my-values",
        f"container-registry register images --flavor ecr --uri {registry}",
        f"step-operator register training --flavor sagemaker --role {ROLE}",
        "stack register cloud -a values -c images -s training -s local --set",
    ):
        assert stepops(words).code == 0
    printed = stepops("permissions").json()
    assert list(printed) == ["training"]
    assert sorted(printed["training"]) == ["job", "job_trust", "worker"]
    assert stepops("permissions --cloud aws").json() == printed


def test_a_stack_that_is_in_no_cloud_is_said_in_one_line(stepops: Stepops) -> None:  # noqa: F811
    said: Said = stepops("permissions --cloud aws")
    assert (said.code, said.out) == (2, "")
    assert "no step operator of cloud 'aws'. Its step operators: local (no cloud)" in said.err
