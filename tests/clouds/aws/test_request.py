"""Requests of SageMaker jobs, held to the service's own model."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_stepops.clouds.aws.instances import INSTANCES
from airflow_stepops.clouds.aws.limits import check_request
from airflow_stepops.clouds.aws.request import create_request
from airflow_stepops.clouds.aws.step_operator import SageMakerStepOperator
from airflow_stepops.errors import JobRefusedError
from airflow_stepops.jobs.protocol import JobRequest
from airflow_stepops.runtime.spec import Attempt, spec_uri

ROLE = "arn:aws:iam::123456789012:role/training"
IMAGE = f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/stepops@sha256:{'a' * 64}"
MODEL = botocore.session.get_session().get_service_model("sagemaker")


def request(**facts: Any) -> JobRequest:
    usual: dict[str, Any] = {
        "name": "churn-train-1-0123456789abcdef",
        "attempt": Attempt("churn", "manual__2026-01-01T00:00:00+00:00", "train", -1, 1, "instance", "ti-1"),
        "image": IMAGE,
        "spec_uri": "s3://bucket/team/runs/churn/manual/train/-1/attempt-1/spec.json",
        "artifact_root": "s3://bucket/team",
    }
    return JobRequest(**{**usual, **facts})


def made(asked: JobRequest | None = None, **given: Any) -> dict[str, Any]:
    """Return the request for a component with these settings, checked as before the call."""
    component = SageMakerStepOperator(role=ROLE, **given)
    document = create_request(asked or request(), component, ROLE)
    check_request(operation(component), document)
    return document


def operation(component: SageMakerStepOperator) -> Any:
    return MODEL.operation_model(f"Create{component.job_type.title()}Job")


def test_a_training_job_runs_the_runtime_in_the_image_and_is_told_its_spec_alone() -> None:
    document = made()
    assert document["AlgorithmSpecification"]["TrainingImage"] == IMAGE
    assert document["AlgorithmSpecification"]["ContainerEntrypoint"] == ["python", "-m", "airflow_stepops.runtime"]
    assert document["Environment"] == {"STEPOPS_SPEC": request().spec_uri}
    assert document["OutputDataConfig"] == {"S3OutputPath": "s3://bucket/team/sagemaker"}
    tags = {tag["Key"]: tag["Value"] for tag in document["Tags"]}
    assert tags["airflow_run_id"] == "manual__2026-01-01T00:00:00+00:00"


def test_the_step_s_timeout_goes_before_the_usual_one() -> None:
    assert made(request(timeout=600))["StoppingCondition"] == {"MaxRuntimeInSeconds": 600}
    assert made(max_runtime=7200)["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200}


def test_spot_keeps_checkpoints_where_the_next_attempt_finds_them_and_waits_no_shorter_than_it_runs() -> None:
    document = made(request(resources={"spot": True}, timeout=900), max_wait=60)
    assert document["EnableManagedSpotTraining"] is True
    assert document["StoppingCondition"] == {"MaxRuntimeInSeconds": 900, "MaxWaitTimeInSeconds": 900}
    assert document["CheckpointConfig"]["S3Uri"] == "s3://bucket/team/runs/churn/manual/train/-1/checkpoints/sagemaker"


def test_a_processing_job_takes_the_same_settings() -> None:
    document = made(
        job_type="processing", input_data={"raw": "s3://bucket/raw"}, subnets=["s"], security_group_ids=["g"]
    )
    assert document["AppSpecification"]["ImageUri"] == IMAGE
    assert document["ProcessingInputs"][0]["S3Input"]["LocalPath"] == "/opt/ml/input/data/raw"
    assert document["NetworkConfig"]["VpcConfig"] == {"Subnets": ["s"], "SecurityGroupIds": ["g"]}


@pytest.mark.parametrize("job_type", ["training", "processing"])
def test_a_spec_with_a_long_uri_fits_into_variables(job_type: str) -> None:
    uri = f"s3://bucket/{'x' * 1200}/spec.json"
    document = made(request(spec_uri=uri), job_type=job_type)
    assert spec_uri(document["Environment"]) == uri


@pytest.mark.parametrize(
    ("resources", "instance"),
    [
        ({}, "ml.m5.large"),
        ({"cpus": 4}, "ml.m5.xlarge"),
        ({"memory": "15GiB"}, "ml.r5.large"),
        ({"gpus": 1}, "ml.g4dn.xlarge"),
        ({"gpus": 1, "gpu_type": "A10G", "memory": "30GiB"}, "ml.g5.2xlarge"),
        ({"gpus": 8, "gpu_type": "h100"}, "ml.p5.48xlarge"),
    ],
)
def test_resources_choose_the_cheapest_usual_instance(resources: dict[str, Any], instance: str) -> None:
    assert made(request(resources=resources))["ResourceConfig"]["InstanceType"] == instance


def test_every_usual_instance_type_is_known_to_the_service() -> None:
    known = MODEL.shape_for("TrainingInstanceType").enum
    assert [instance.name for instance in INSTANCES if instance.name not in known] == []


@pytest.mark.parametrize(
    ("asked", "given", "said"),
    [
        ({"resources": {"gpus": 2}}, {"instance_type": "ml.g5.xlarge"}, "has 4 CPUs, 16 GiB, 1 GPUs a10g"),
        ({"resources": {"cpus": 1000}}, {}, "no usual instance type of SageMaker has cpus=1000"),
        ({}, {"instance_type": "ml.m5.larg"}, "Did you mean 'ml.m5.large'?"),
        ({"artifact_root": "file:///data"}, {}, "artifact_store of flavor 's3'"),
        ({"secrets": {"TOKEN": "env:TOKEN"}}, {}, "AWS Secrets Manager"),
        ({"image": "x" * 256}, {}, "at most 255 is allowed"),
        ({}, {"environment": {"a-b": "c"}}, "a key of CreateTrainingJob.Environment='a-b'"),
        ({}, {"environment": {"A": "x" * 513}}, "at most 512 is allowed"),
        (
            {},
            {"extra": {"ResourceConfig": {"Instance": 1}}},
            "CreateTrainingJob.ResourceConfig.Instance: SageMaker knows",
        ),
        ({}, {"extra": {"StoppingCondition": {"MaxRuntimeInSeconds": "1"}}}, "must be of type integer"),
        ({}, {"tags": {str(number): "x" for number in range(50)}}, "at most 50 is allowed"),
        ({"resources": {"spot": True}}, {"job_type": "processing"}, "know no spot"),
    ],
)
def test_what_the_service_would_refuse_is_refused_first_and_the_field_is_named(
    asked: dict[str, Any], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobRefusedError) as caught:
        made(request(**asked), **given)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"role": "arn:aws:s3:::x"}, "give the ARN of a role"),
        ({"role": ROLE, "instance_type": "m5.large"}, "instance_type"),
        ({"role": ROLE, "instance_typ": "ml.m5.large"}, "Did you mean 'instance_type'?"),
        ({"role": ROLE, "subnets": ["s"]}, "go together"),
        ({"role": ROLE, "job_type": "processing", "spot": True}, "processing jobs have none of it"),
        ({"role": ROLE, "instance_type": "ml.m5.large", "instance_preferences": ["ml.m5.large"]}, "give one of them"),
        ({"role": ROLE, "output_path": "/data"}, "s3://bucket/prefix"),
        ({"role": ROLE, "extra": {"TrainingJobName": "x"}}, "which job this is"),
        ({"role": ROLE, "volume_size": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_while_the_stack_is_read(given: dict[str, Any], said: str) -> None:
    from airflow_stepops.stacks.checks import model_error

    with pytest.raises(ValueError) as caught:
        SageMakerStepOperator(**given)
    told = str(model_error(caught.value, "stepops.yaml: step_operators.gpu.", SageMakerStepOperator))
    assert said in told
    assert "\n" not in told


TEXT = st.text(max_size=20)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "job_type": st.sampled_from(["training", "processing"]),
        "instance_type": st.sampled_from(["ml.m5.large", "ml.c5.xlarge", "ml.nope.large"]),
        "instance_count": st.integers(1, 3),
        "volume_size": st.integers(1, 20000),
        "max_runtime": st.integers(1, 3_000_000),
        "spot": st.booleans(),
        "max_wait": st.integers(1, 10**7),
        "keep_alive": st.integers(0, 30000),
        "retry_attempts": st.integers(1, 40),
        "experiment_name": st.from_regex(r"[a-z][a-z_-]{0,5}", fullmatch=True),
        "metrics": st.dictionaries(TEXT, TEXT, max_size=2),
        "environment": st.dictionaries(st.sampled_from(["A", "b-c", "D" * 600]), TEXT, max_size=2),
        "tags": st.dictionaries(TEXT, st.text(max_size=300), max_size=3),
        "input_data": st.dictionaries(TEXT, st.just("s3://bucket/x"), max_size=2),
        "volume_kms_key": st.text("abc:/ -", max_size=8),
    },
)


@given(SETTINGS, st.text(min_size=1, max_size=300))
@settings(max_examples=1000)
def test_every_generated_request_is_one_that_botocore_takes_or_is_refused_by_us_first(
    given_settings: dict[str, Any], run_id: str
) -> None:
    try:
        component = SageMakerStepOperator(role=ROLE, **given_settings)
    except ValueError:
        return
    asked = request(attempt=Attempt("churn", run_id, "train", 3, 1, "instance", "ti-1"))
    try:
        document = create_request(asked, component, ROLE)
        check_request(operation(component), document)
    except JobRefusedError as error:
        assert "\n" not in str(error).replace(run_id, "")
        return
    report = ParamValidator().validate(document, operation(component).input_shape)
    assert not report.has_errors(), report.generate_report()
