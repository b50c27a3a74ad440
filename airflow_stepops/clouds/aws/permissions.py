"""IAM policies with the least rights that a stack needs on AWS.

Sources: "Service Authorization Reference" of S3, ECR, SageMaker and CloudWatch Logs; "SageMaker AI roles", section
"CreateTrainingJob API: Execution Role Permissions"; IAM's "JSON policy elements: Resource", section "Using wildcards in
resource ARNs".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_stepops.clouds.aws.artifact_store import S3ArtifactStore
from airflow_stepops.clouds.aws.container_registry import ECR_HOST, EcrContainerRegistry
from airflow_stepops.clouds.aws.step_operator import SageMakerStepOperator
from airflow_stepops.clouds.job_objects import DELETED, INPUTS, WRITTEN, below
from airflow_stepops.stacks.components import ArtifactStoreComponent, ContainerRegistryComponent

#: Uploads in parts are put too; S3 overwrites without a right to delete.
_WRITE = ("s3:AbortMultipartUpload", "s3:PutObject")
#: What SageMaker itself writes to the output path of a training job: ``<job>/output/…``.
_OUTPUT = ("*/output/model.tar.gz", "*/output/output.tar.gz")
_PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
_PUSH = ("ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart")
_IN_A_VPC = (
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)

Statement = dict[str, Any]


@dataclass(frozen=True)
class _Place:
    """Where a stack is; ``*`` for what its settings do not say."""

    partition: str
    account: str
    region: str

    def arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


def policies(
    operator: SageMakerStepOperator,
    artifact_store: ArtifactStoreComponent,
    container_registry: ContainerRegistryComponent,
) -> dict[str, Any]:
    """Return the documents: ``worker`` for the identity of the Airflow connections, ``job`` and ``job_trust`` for the
    execution role.

    :param artifact_store: of the stack; one that is not in S3 gets no statement.
    :param container_registry: of the stack; one that is not ECR gets no statement.
    """
    place = _place(operator, container_registry)
    worker = [*_running_jobs(operator, place), *_reading_logs(operator, place)]
    job = [*_writing_logs(operator, place), *_job_extras(operator, place)]
    if isinstance(artifact_store, S3ArtifactStore):
        worker += _store(artifact_store, place, writes=["*"], deletes=["*"])
        job += _store(artifact_store, place, writes=WRITTEN, deletes=DELETED)
        job.append(_keeping(artifact_store, place))
    if operator.job_type == "training" and (output := operator.output_path or _usual_output(artifact_store)):
        job.append(_allow("WriteOutputPath", _WRITE, _objects(output, _OUTPUT, place)))
    if isinstance(container_registry, EcrContainerRegistry):
        worker += _images(container_registry, place, push=True)
        job += _images(container_registry, place, push=False)
    principal = {"Service": "sagemaker.amazonaws.com"}
    return {
        "worker": _policy(worker),
        "job": _policy(job),
        "job_trust": _policy([{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}]),
    }


def _place(operator: SageMakerStepOperator, container_registry: ContainerRegistryComponent) -> _Place:
    account = region = "*"
    partition = "aws"
    if isinstance(container_registry, EcrContainerRegistry):
        found = ECR_HOST.fullmatch(container_registry.uri.partition("/")[0])
        if found is not None:
            region = found["region"]
    region = operator.region or region
    if operator.role.startswith("arn:"):
        _, partition, _, _, account, _ = operator.role.split(":", 5)
    elif region.startswith("cn-"):
        partition = "aws-cn"
    elif region.startswith("us-gov-"):
        partition = "aws-us-gov"
    return _Place(partition, account, region)


def _running_jobs(operator: SageMakerStepOperator, place: _Place) -> list[Statement]:
    kind = operator.job_type
    word = kind.title()
    actions = [f"sagemaker:{verb}{word}Job" for verb in ("Create", "Describe", "Stop")]
    named = operator.role if operator.role.startswith("arn:") else None
    role = named or f"arn:{place.partition}:iam::{place.account}:role/{operator.role}"
    passing = {
        **_allow("PassTheJobItsRole", ["iam:PassRole"], [role]),
        "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
    }
    statements = [
        _allow("RunJobs", [*actions, "sagemaker:AddTags"], [place.arn("sagemaker", f"{kind}-job/*")]),
        _allow("ListJobs", [f"sagemaker:List{word}Jobs"], ["*"]),
        passing,
    ]
    if named is None:
        statements.append(_allow("FindTheRole", ["iam:GetRole"], [role]))
    return statements


def _reading_logs(operator: SageMakerStepOperator, place: _Place) -> list[Statement]:
    group = _log_group(operator, place)
    return [
        _allow("ListLogs", ["logs:DescribeLogStreams"], [group]),
        _allow("ReadLogs", ["logs:GetLogEvents"], [f"{group}:log-stream:*"]),
    ]


def _writing_logs(operator: SageMakerStepOperator, place: _Place) -> list[Statement]:
    group = _log_group(operator, place)
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    return [_allow("WriteLogs", actions, [group, f"{group}:log-stream:*"])]


def _log_group(operator: SageMakerStepOperator, place: _Place) -> str:
    return place.arn("logs", f"log-group:/aws/sagemaker/{operator.job_type.title()}Jobs")


def _job_extras(operator: SageMakerStepOperator, place: _Place) -> list[Statement]:
    """Return what the job's role needs for some settings alone."""
    # Metrics have no resources: "*" is all that IAM takes for them.
    statements = [_allow("WriteMetrics", ["cloudwatch:PutMetricData"], ["*"])]
    if operator.input_data:
        statements += _reading("InputData", list(operator.input_data.values()), place)
    if operator.subnets:
        statements.append(_allow("JoinTheVpc", _IN_A_VPC, ["*"]))
    if operator.volume_kms_key:
        actions = ["kms:CreateGrant", "kms:DescribeKey"]
        statements.append(_allow("EncryptDisks", actions, [_key(operator.volume_kms_key, place)]))
    if operator.output_kms_key:
        actions = ["kms:Encrypt", "kms:GenerateDataKey"]
        statements.append(_allow("EncryptOutput", actions, [_key(operator.output_kms_key, place)]))
    return statements


def _store(store: S3ArtifactStore, place: _Place, *, writes: Sequence[str], deletes: Sequence[str]) -> list[Statement]:
    """Return what reading and writing values needs.

    :param writes: patterns of the objects that may be written, below the root.
    :param deletes: of those that may be deleted.
    """
    root = store.root()
    # Not for the prefix alone: who may not list the whole bucket is told 403 of an object that is not there, not 404.
    statements = [
        _allow("ReadArtifacts", ["s3:GetObject"], _objects(root, ["*"], place)),
        _allow("WriteArtifacts", _WRITE, _objects(root, writes, place)),
        _allow("DeleteArtifacts", ["s3:DeleteObject"], _objects(root, deletes, place)),
        _allow("ListArtifacts", ["s3:ListBucket"], [_s3(f"s3://{store.bucket}", place)]),
    ]
    if store.kms_key:
        key = _key(store.kms_key, place)
        statements.append(_allow("EncryptArtifacts", ["kms:Decrypt", "kms:GenerateDataKey"], [key]))
    return statements


def _keeping(store: S3ArtifactStore, place: _Place) -> Statement:
    """Return what leaves inputs to Airflow."""
    actions = [*_WRITE, "s3:DeleteObject"]
    return {**_allow("KeepInputs", actions, _objects(store.root(), [INPUTS], place)), "Effect": "Deny"}


def _usual_output(store: ArtifactStoreComponent) -> str:
    """Return where SageMaker writes when no output path is given, ``""`` where it cannot."""
    return f"{store.root()}/sagemaker" if isinstance(store, S3ArtifactStore) else ""


def _reading(name: str, uris: Sequence[str], place: _Place) -> list[Statement]:
    folders = sorted({_s3(uri, place) for uri in uris})
    buckets = sorted({folder.partition("/")[0] for folder in folders})
    return [
        _allow(f"Read{name}", ["s3:GetObject"], [f"{folder}*" for folder in folders]),
        _allow(f"List{name}", ["s3:ListBucket"], buckets),
    ]


def _images(registry: EcrContainerRegistry, place: _Place, *, push: bool) -> list[Statement]:
    host, _, prefix = registry.uri.partition("/")
    found = ECR_HOST.fullmatch(host)
    account, region = (found["account"], found["region"]) if found else (place.account, place.region)
    path = f"{prefix}/{registry.repository}" if prefix else registry.repository
    repository = f"arn:{place.partition}:ecr:{region}:{account}:repository/{path}"
    actions = [*_PULL, *(_PUSH if push else ())]
    if push and registry.create_repository:
        actions.append("ecr:CreateRepository")
    return [
        _allow("LogInToTheRegistry", ["ecr:GetAuthorizationToken"], ["*"]),
        _allow("PushImages" if push else "PullImages", actions, [repository]),
    ]


def _s3(uri: str, place: _Place) -> str:
    return f"arn:{place.partition}:s3:::{uri.removeprefix('s3://').rstrip('/')}"


def _objects(folder: str, patterns: Sequence[str], place: _Place) -> list[str]:
    """Return the ARNs of objects in a folder."""
    return [_s3(below(folder.rstrip("/"), pattern), place) for pattern in patterns]


def _key(key: str, place: _Place) -> str:
    """Return the ARN of a key that is given by its ARN or its id; an alias stands for keys that only AWS knows."""
    if key.startswith("arn:"):
        return key
    return place.arn("kms", "key/*" if key.startswith("alias/") else f"key/{key}")


def _allow(name: str, actions: Sequence[str], resources: Sequence[str]) -> Statement:
    return {"Sid": name, "Effect": "Allow", "Action": sorted(actions), "Resource": list(resources)}


def _policy(statements: Sequence[Statement]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}
