"""The example pipeline on the emulated Azure, run by Airflow in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_stepops.clouds.azure.service import AzureMLJobService
from tests.airflow_env import DAGS, FinishedRun, InProcessAirflow
from tests.clouds.azure.acr import Acr
from tests.clouds.azure.azureml import AzureML

EXAMPLES = Path(__file__).resolve().parents[3] / "dags_examples"
CONF = {"airport": "LGA", "learning_rate": 0.2}
LOCALLY = """\
from late_arrivals import evaluate, load, train

from airflow_stepops.dag import pipeline


@pipeline
def local_late_arrivals(airport: str = "JFK", learning_rate: float = 0.1) -> None:
    flights = load(airport)
    evaluate(flights, train(flights, learning_rate))
"""


@pytest.fixture(scope="module")
def examples(migrated_database: None) -> Iterator[InProcessAirflow]:
    airflow = InProcessAirflow(DAGS)
    for name in ("late_arrivals.py", "azure_late_arrivals.py"):
        airflow.write(name, (EXAMPLES / name).read_text())
    yield airflow
    shutil.rmtree(DAGS)
    DAGS.mkdir()


@pytest.fixture(scope="module")
def on_azure(examples: InProcessAirflow, airflow_settings: dict[str, str]) -> FinishedRun:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in airflow_settings.items():
            patch.setenv(name, value)
        patch.setattr(AzureMLJobService, "poll_seconds", 0.5)
        return examples.run("azure_late_arrivals", CONF)


@pytest.fixture(scope="module")
def locally(examples: InProcessAirflow, on_azure: FinishedRun) -> FinishedRun:
    """The same steps on the built-in local stack."""
    examples.write("local_late_arrivals.py", LOCALLY)
    examples.dags.joinpath("azure_late_arrivals.py").unlink()
    return examples.run("local_late_arrivals", CONF)


def test_the_example_runs_in_the_worker_and_in_jobs(on_azure: FinishedRun, workspace: AzureML) -> None:
    assert on_azure.states == dict.fromkeys(["load", "train", "evaluate"], "success")
    told = {task: on_azure.xcom(task, "stepops") for task in on_azure.states}
    assert {task: facts["where"] for task, facts in told.items()} == {
        "load": "worker",
        "train": "azureml",
        "evaluate": "azureml",
    }
    assert {workspace.jobs[told[task]["job_name"]].status for task in ("train", "evaluate")} == {"Completed"}


def test_what_the_step_asks_for_is_what_the_job_is_given(on_azure: FinishedRun, workspace: AzureML) -> None:
    sent = workspace.jobs[on_azure.xcom("train", "stepops")["job_name"]].sent
    assert sent["queueSettings"]["jobTier"] == "Spot"
    assert sent["limits"]["timeout"] == "PT1800S"
    assert (sent["tags"]["project"], sent["tags"]["airflow_task_id"]) == ("late-arrivals", "train")


def test_the_step_tells_where_to_look(on_azure: FinishedRun, registry_of_azure: tuple[Acr, str]) -> None:
    told = on_azure.xcom("train", "stepops")
    assert told["metadata"]["flights"] == 74_214
    assert told["image"].startswith(f"{registry_of_azure[1]}/team/stepops@sha256:")
    assert told["job_name"] in told["console_url"]


def test_the_outputs_are_those_of_the_local_stack_bit_for_bit(on_azure: FinishedRun, locally: FinishedRun) -> None:
    assert set(locally.states.values()) == {"success"}
    scores = on_azure.xcom("evaluate")["scores"]
    assert scores == locally.xcom("evaluate")["scores"]
    assert 0.55 < scores["auc"] < 0.8
    probabilities = [run.xcom("evaluate")["probabilities"] for run in (on_azure, locally)]
    assert probabilities[0].blake3 == probabilities[1].blake3
