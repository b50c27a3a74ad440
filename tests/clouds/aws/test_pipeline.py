"""The example pipeline on the emulated AWS, run by Airflow in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_stepops.clouds.aws.service import SageMakerJobService
from tests.airflow_env import DAGS, FinishedRun, InProcessAirflow
from tests.clouds.aws.sagemaker import SageMaker
from tests.images.faults import FaultyProxy

EXAMPLES = Path(__file__).resolve().parents[3] / "dags_examples"
CONF = {"airport": "LGA", "learning_rate": 0.2}


@pytest.fixture(scope="module")
def examples(migrated_database: None) -> Iterator[InProcessAirflow]:
    airflow = InProcessAirflow(DAGS)
    for name in ("late_arrivals.py", "aws_late_arrivals.py"):
        airflow.write(name, (EXAMPLES / name).read_text())
    yield airflow
    shutil.rmtree(DAGS)
    DAGS.mkdir()


@pytest.fixture(scope="module")
def on_aws(examples: InProcessAirflow, airflow_settings: dict[str, str]) -> FinishedRun:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in airflow_settings.items():
            patch.setenv(name, value)
        patch.setattr(SageMakerJobService, "poll_seconds", 0.5)
        return examples.run("aws_late_arrivals", CONF)


@pytest.fixture(scope="module")
def locally(examples: InProcessAirflow, on_aws: FinishedRun) -> FinishedRun:
    """The same steps on the built-in local stack."""
    examples.write(
        "local_late_arrivals.py",
        """\
from late_arrivals import evaluate, load, train

from airflow_stepops.dag import pipeline


@pipeline
def local_late_arrivals(airport: str = "JFK", learning_rate: float = 0.1) -> None:
    flights = load(airport)
    evaluate(flights, train(flights, learning_rate))
""",
    )
    examples.dags.joinpath("aws_late_arrivals.py").unlink()
    return examples.run("local_late_arrivals", CONF)


def test_the_example_runs_in_the_worker_on_a_training_job_and_on_a_processing_job(
    on_aws: FinishedRun, emulated: SageMaker
) -> None:
    assert on_aws.states == dict.fromkeys(["load", "train", "evaluate"], "success")
    told = {task: on_aws.xcom(task, "stepops") for task in on_aws.states}
    assert {task: facts["where"] for task, facts in told.items()} == {
        "load": "worker",
        "train": "sagemaker",
        "evaluate": "sagemaker",
    }
    kinds = {task: emulated.jobs[told[task]["job_name"]].kind for task in ("train", "evaluate")}
    assert kinds == {"train": "Training", "evaluate": "Processing"}


def test_what_the_step_asks_for_is_what_the_job_is_given(on_aws: FinishedRun, emulated: SageMaker) -> None:
    request = emulated.jobs[on_aws.xcom("train", "stepops")["job_name"]].request
    assert request["EnableManagedSpotTraining"] is True
    assert request["ResourceConfig"]["InstanceType"] == "ml.m5.large"
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 1800, "MaxWaitTimeInSeconds": 5400}
    assert request["AlgorithmSpecification"]["MetricDefinitions"][0]["Name"] == "train:accuracy"
    tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
    assert (tags["project"], tags["airflow_task_id"]) == ("late-arrivals", "train")


def test_the_step_tells_what_the_job_cost_and_where_to_look(on_aws: FinishedRun, images: FaultyProxy) -> None:
    told = on_aws.xcom("train", "stepops")
    assert told["job_metadata"]["billable_seconds"] >= 1
    assert told["job_metadata"]["instance_type"] == "ml.m5.large"
    assert told["metadata"]["flights"] == 74_214
    assert told["image"].startswith(f"{images.host}/team/stepops@sha256:")
    assert told["job_name"] in told["console_url"]
    assert told["job_name"] in told["logs_url"]
    assert told["job_name"].split("-")[0] in told["artifacts_url"]


def test_the_outputs_are_those_of_the_local_stack_bit_for_bit(on_aws: FinishedRun, locally: FinishedRun) -> None:
    assert set(locally.states.values()) == {"success"}
    scores = on_aws.xcom("evaluate")["scores"]
    assert scores == locally.xcom("evaluate")["scores"]
    assert 0.55 < scores["auc"] < 0.8
    probabilities = [run.xcom("evaluate")["probabilities"] for run in (on_aws, locally)]
    assert probabilities[0].blake3 == probabilities[1].blake3
