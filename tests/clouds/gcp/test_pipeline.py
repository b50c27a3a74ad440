"""The example pipeline on the emulated Google Cloud, run by Airflow in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_stepops.clouds.gcp.service import VertexJobService
from tests.airflow_env import DAGS, FinishedRun, InProcessAirflow
from tests.clouds.gcp.emulated import JOB, PROJECT, WORKER, EmulatedGcp
from tests.clouds.gcp.vertex import AGENT, REGION, Job, State, Vertex
from tests.images.faults import FaultyProxy

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
    for name in ("late_arrivals.py", "gcp_late_arrivals.py"):
        airflow.write(name, (EXAMPLES / name).read_text())
    yield airflow
    shutil.rmtree(DAGS)
    DAGS.mkdir()


@pytest.fixture(scope="module")
def calls_before(gcp: EmulatedGcp) -> int:
    """How many calls came before the run."""
    return len(gcp.calls)


@pytest.fixture(scope="module")
def on_gcp(calls_before: int, examples: InProcessAirflow, airflow_settings: dict[str, str]) -> FinishedRun:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in airflow_settings.items():
            patch.setenv(name, value)
        patch.setattr(VertexJobService, "poll_seconds", 0.5)
        return examples.run("gcp_late_arrivals", CONF)


@pytest.fixture(scope="module")
def locally(examples: InProcessAirflow, on_gcp: FinishedRun) -> FinishedRun:
    """The same steps on the built-in local stack."""
    examples.write("local_late_arrivals.py", LOCALLY)
    examples.dags.joinpath("gcp_late_arrivals.py").unlink()
    return examples.run("local_late_arrivals", CONF)


def job_of(emulated: Vertex, run: FinishedRun, task: str) -> Job:
    (job,) = emulated.labelled(run.xcom(task, "stepops")["job_name"])
    return job


def test_the_example_runs_in_the_worker_and_in_jobs(on_gcp: FinishedRun, emulated: Vertex) -> None:
    assert on_gcp.states == dict.fromkeys(["load", "train", "evaluate"], "success")
    where = {task: on_gcp.xcom(task, "stepops")["where"] for task in on_gcp.states}
    assert where == {"load": "worker", "train": "vertex", "evaluate": "vertex"}
    for task in ("train", "evaluate"):
        assert job_of(emulated, on_gcp, task).shown.state is State.JOB_STATE_SUCCEEDED


def test_what_the_step_asks_for_is_what_the_job_is_given(on_gcp: FinishedRun, emulated: Vertex) -> None:
    job = job_of(emulated, on_gcp, "train").shown
    (pool,) = job.job_spec.worker_pool_specs
    assert pool.machine_spec.machine_type == "e2-standard-4"
    assert pool.disk_spec.boot_disk_type == "pd-standard"
    assert job.job_spec.scheduling.strategy.name == "SPOT"
    assert job.job_spec.scheduling.timeout.total_seconds() == 1800
    assert (job.labels["project"], job.labels["airflow_task_id"]) == ("late-arrivals", "train")


def test_the_step_tells_where_to_look(on_gcp: FinishedRun, emulated: Vertex, pulled_from: FaultyProxy) -> None:
    told, job = on_gcp.xcom("train", "stepops"), job_of(emulated, on_gcp, "train")
    assert told["job_metadata"]["machine_type"] == "e2-standard-4"
    assert told["job_metadata"]["strategy"] == "SPOT"
    assert told["metadata"]["flights"] == 74_214
    assert told["image"].startswith(f"{pulled_from.host}/{PROJECT}/steps/steps@sha256:")
    assert f"/locations/{REGION}/training/{job.id}?" in told["console_url"]
    assert job.id in told["logs_url"]
    assert "train" in told["artifacts_url"]


def test_everybody_is_who_they_should_be(calls_before: int, on_gcp: FinishedRun, gcp: EmulatedGcp) -> None:
    assert on_gcp.state == "success"
    callers = {(call.service, call.caller) for call in gcp.calls[calls_before:]}
    assert {caller for service, caller in callers if service == "aiplatform"} == {WORKER}
    assert {caller for service, caller in callers if service == "storage"} == {WORKER, JOB}
    assert AGENT not in {caller for service, caller in callers if service != "artifactregistry"}


def test_the_outputs_are_those_of_the_local_stack_bit_for_bit(on_gcp: FinishedRun, locally: FinishedRun) -> None:
    assert set(locally.states.values()) == {"success"}
    scores = on_gcp.xcom("evaluate")["scores"]
    assert scores == locally.xcom("evaluate")["scores"]
    assert 0.55 < scores["auc"] < 0.8
    probabilities = [run.xcom("evaluate")["probabilities"] for run in (on_gcp, locally)]
    assert probabilities[0].blake3 == probabilities[1].blake3
