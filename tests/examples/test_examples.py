"""The example pipelines, run by Airflow in this process on the built-in local stack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.airflow_env import DAGS, FinishedRun, InProcessAirflow
from tests.engines import Podman

EXAMPLES = Path(__file__).resolve().parents[2] / "dags_examples"
AIRPORTS = ["EWR", "JFK", "LGA"]


@pytest.fixture(scope="module")
def examples(migrated_database: None) -> Iterator[InProcessAirflow]:
    airflow = InProcessAirflow(DAGS)
    for file in (*EXAMPLES.glob("*.py"), EXAMPLES / "stepops.yaml"):
        airflow.write(file.name, file.read_text())
    yield airflow
    shutil.rmtree(DAGS)
    DAGS.mkdir()


@pytest.fixture(scope="module")
def flights(examples: InProcessAirflow) -> FinishedRun:
    return examples.run("flight_delays", {"learning_rate": 0.2})


@pytest.fixture(scope="module")
def flights_on_an_engine(
    examples: InProcessAirflow,
    registry: str,
    base_image: str,
    podman: Podman,
    tmp_path_factory: pytest.TempPathFactory,
) -> FinishedRun:
    """The same example with another stack: containers on Podman, pulled from a registry."""
    folder = tmp_path_factory.mktemp("engine")
    stacks = yaml.safe_load((EXAMPLES / "stepops.yaml").read_text())
    stacks["artifact_stores"]["files"] = {"flavor": "local", "path": str(folder / "store")}
    stacks["container_registries"]["cncf"] = {"flavor": "generic", "uri": f"{registry}/team"}
    engine = {"flavor": "docker", "docker_host": podman.socket, "base_image": base_image, "network": "host"}
    stacks["step_operators"]["engine"] = engine
    parts = {"artifact_store": "files", "container_registry": "cncf", "step_operators": ["engine"]}
    stacks |= {"active": "engine", "stacks": {**stacks["stacks"], "engine": parts}}
    file = folder / "stepops.yaml"
    file.write_text(yaml.safe_dump(stacks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPOPS_CONFIG", str(file))
        return examples.run("flight_delays", {"learning_rate": 0.2})


@pytest.fixture(scope="module")
def mix(examples: InProcessAirflow) -> FinishedRun:
    return examples.run("taskflow_mix")


def facts(run: FinishedRun, task: str, index: int = -1) -> dict[str, Any]:
    """Return what a step said of where and how it ran."""
    said = run.xcom(task, "stepops", index)
    assert isinstance(said, dict), f"{task}[{index}] said nothing"
    return said


def test_the_flights_example_succeeds_in_every_step(flights: FinishedRun) -> None:
    mapped = [f"{task}[{index}]" for task in ("train", "evaluate") for index in range(3)]
    assert flights.states == dict.fromkeys(["load", "features", *mapped, "report"], "success")


def test_the_heavy_steps_of_the_flights_ran_as_jobs_and_the_others_in_the_worker(flights: FinishedRun) -> None:
    assert [facts(flights, task)["where"] for task in ("load", "features", "report")] == ["worker", "local", "worker"]
    jobs = [facts(flights, task, index) for task in ("train", "evaluate") for index in range(3)]
    assert {job["where"] for job in jobs} == {"local"}
    assert len({job["job_name"] for job in jobs}) == 6
    assert {job["image_digest"] for job in jobs} == {facts(flights, "features")["image_digest"]}


def test_the_flights_image_is_uploaded_once(flights: FinishedRun) -> None:
    first = facts(flights, "features")
    assert first["uploaded_blobs"] > 0
    assert first["uploaded_bytes"] > 10_000_000
    assert [facts(flights, "train", index)["uploaded_bytes"] for index in range(3)] == [0, 0, 0]


def test_the_models_foresee_late_flights_better_than_chance(flights: FinishedRun) -> None:
    scores = [flights.xcom("evaluate", map_index=index) for index in range(3)]
    assert [score["airport"] for score in scores] == AIRPORTS
    assert all(0.6 < score["auc"] < 0.8 for score in scores)
    assert sum(score["flights"] for score in scores) == 82_609
    assert flights.xcom("report") == max(scores, key=lambda score: score["auc"])["airport"]


def test_what_the_steps_logged_is_told_with_them(flights: FinishedRun) -> None:
    assert facts(flights, "features")["metadata"] == {"flights": 336_776, "flown": 327_346, "late_share": 0.2371}
    trained = [facts(flights, "train", index)["metadata"] for index in range(3)]
    assert [one["airport"] for one in trained] == AIRPORTS
    assert {one["learning_rate"] for one in trained} == {0.2}


def test_tables_travel_as_references(flights: FinishedRun) -> None:
    tables = flights.xcom("features")
    assert sorted(tables) == ["test", "train"]
    assert len(tables["test"].load()) == 82_609


def test_the_example_runs_unchanged_on_another_stack_with_equal_results(
    flights: FinishedRun, flights_on_an_engine: FinishedRun, registry: str
) -> None:
    assert flights_on_an_engine.states == flights.states
    jobs = [facts(flights_on_an_engine, "train", index) for index in range(3)]
    assert {job["where"] for job in jobs} == {"docker"}
    assert all(job["image"].startswith(f"{registry}/team/stepops@sha256:") for job in jobs)
    for index in range(3):
        assert flights_on_an_engine.xcom("evaluate", map_index=index) == flights.xcom("evaluate", map_index=index)
    tables, local_tables = flights_on_an_engine.xcom("features"), flights.xcom("features")
    assert {name: table.blake3 for name, table in tables.items()} == {
        name: table.blake3 for name, table in local_tables.items()
    }


def test_the_engine_ran_the_image_that_was_pushed(flights_on_an_engine: FinishedRun, podman: Podman) -> None:
    job = facts(flights_on_an_engine, "train", 0)
    image = podman.run("inspect", "--format", "{{.ImageDigest}} {{.ImageName}}", job["job_name"]).split()
    assert job["image_digest"] in " ".join(image)


def test_steps_work_beside_ordinary_tasks_in_a_task_group_mapped_and_overridden(mix: FinishedRun) -> None:
    assert set(mix.states.values()) == {"success"}
    assert [mix.xcom("analyse.outliers", map_index=index) for index in range(3)] == [[5], [5], [6]]
    assert mix.xcom("outliers_of_a_constant") == []
    assert mix.xcom("count") == {"outliers": 3, "unit": "days"}
    assert facts(mix, "count")["where"] == "local"


def test_a_second_run_uploads_nothing(examples: InProcessAirflow, mix: FinishedRun) -> None:
    again = examples.run("taskflow_mix")
    assert facts(again, "count")["image_digest"] == facts(mix, "count")["image_digest"]
    uploads = [facts(again, task)["uploaded_blobs"] for task in ("count", "outliers_of_a_constant")]
    uploads += [facts(again, "analyse.outliers", index)["uploaded_blobs"] for index in range(3)]
    assert uploads == [0] * 5
