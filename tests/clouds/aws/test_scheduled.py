"""The example pipeline on the emulated AWS under a real scheduler and triggerer; nothing secret is left anywhere."""

from __future__ import annotations

import gzip
import io
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.clouds.aws.emulated import ACCESS_KEY, SECRET_KEY, EmulatedAws
from tests.clouds.aws.sagemaker import SageMaker
from tests.images.faults import FaultyProxy
from tools.airflow_home import LocalAirflow, running_airflow

EXAMPLES = Path(__file__).resolve().parents[3] / "dags_examples"
FOR_EVER = """\
import time

from airflow_stepops.dag import Image, pipeline, step


@step(step_operator=True, image=Image(python="3.11"))
def wait():
    print("waiting", flush=True)
    time.sleep(3600)


@pipeline(stack="aws")
def for_ever():
    wait()
"""


@pytest.fixture(scope="module")
def airflow(airflow_settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    folder = tmp_path_factory.mktemp("scheduled")
    dags = folder / "dags"
    dags.mkdir()
    for name in ("late_arrivals.py", "aws_late_arrivals.py"):
        (dags / name).write_text((EXAMPLES / name).read_text())
    (dags / "for_ever.py").write_text(FOR_EVER)
    with running_airflow(folder / "airflow", dags, settings=airflow_settings) as running:
        for dag in ("aws_late_arrivals", "for_ever"):
            running.wait_for_dag(dag)
        yield running


@pytest.fixture(scope="module")
def waiting(airflow: LocalAirflow) -> tuple[str, dict[str, Any]]:
    """A job that would run for ever: the run, and what the step tells while it runs."""
    run = airflow.client.trigger("for_ever")
    airflow.client.wait_for_task("for_ever", run, "wait", ("deferred",))
    until(lambda: "waiting" in airflow.client.log("for_ever", run, "wait"))
    return run, airflow.client.xcom("for_ever", run, "wait", "stepops")


@pytest.fixture(scope="module")
def seen_while_waiting(airflow: LocalAirflow, waiting: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """What is there of the job while it runs: links in the UI, and what Airflow's database keeps of its trigger."""
    run, _ = waiting
    links = airflow.client.request("GET", f"dags/for_ever/dagRuns/{quote(run)}/taskInstances/wait/links")
    with closing(sqlite3.connect(airflow.home / "airflow.db")) as database:
        (trigger,) = database.execute("select classpath || kwargs from trigger").fetchone()
    return {"links": links["extra_links"], "trigger": trigger}


@pytest.fixture(scope="module")
def finished(airflow: LocalAirflow, seen_while_waiting: dict[str, Any]) -> dict[str, Any]:
    """The outputs of the example's last step."""
    started = airflow.client.trigger("aws_late_arrivals", {"airport": "LGA", "learning_rate": 0.2})
    assert airflow.client.wait("aws_late_arrivals", started, timeout=300) == "success"
    outputs: dict[str, Any] = airflow.client.xcom("aws_late_arrivals", started, "evaluate")
    return outputs


def until(happened: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


def test_the_links_lead_to_the_console_while_the_job_runs(
    waiting: tuple[str, dict[str, Any]], seen_while_waiting: dict[str, Any]
) -> None:
    links, job = seen_while_waiting["links"], waiting[1]["job_name"]
    assert sorted(links) == ["Artifacts", "Image", "Job", "Job logs"]
    assert links["Job"].endswith(f"#/jobs/{job}")
    assert job in links["Job logs"]
    assert "/s3/buckets/" in links["Artifacts"]


def test_the_log_of_the_job_and_its_progress_are_in_the_task_s_log(
    airflow: LocalAirflow, waiting: tuple[str, dict[str, Any]]
) -> None:
    def log() -> list[str]:
        return airflow.client.log("for_ever", waiting[0], "wait")

    assert "waiting" in log()
    until(lambda: any(line.startswith("[stepops] job is running: Training") for line in log()))


def test_the_example_ends_with_its_outputs(finished: dict[str, Any]) -> None:
    assert 0.55 < finished["scores"]["auc"] < 0.8
    assert finished["probabilities"]["__data__"]["blake3"]


def test_a_task_that_a_person_fails_stops_its_job(
    airflow: LocalAirflow, finished: dict[str, Any], waiting: tuple[str, dict[str, Any]], emulated: SageMaker
) -> None:
    run, told = waiting
    job = emulated.jobs[told["job_name"]]
    assert job.status == "InProgress"
    airflow.client.set_state("for_ever", run, "wait", "failed")
    until(lambda: job.status == "Stopped")
    assert {other.status for other in emulated.jobs.values() if other.name.startswith("aws-late")} == {"Completed"}


def test_no_secret_is_in_anything_that_was_written_or_sent(
    airflow: LocalAirflow,
    finished: dict[str, Any],
    seen_while_waiting: dict[str, Any],
    emulated: SageMaker,
    aws: EmulatedAws,
    images: FaultyProxy,
    registry: str,
    airflow_settings: dict[str, str],
) -> None:
    secrets = [secret.encode() for secret in (SECRET_KEY, ACCESS_KEY, *aws.given)]
    assert len(secrets) > 2
    places = {
        "trigger": seen_while_waiting["trigger"].encode(),
        "stack file": Path(airflow_settings["STEPOPS_CONFIG"]).read_bytes(),
        **{f"request of {job.name}": repr(job.request).encode() for job in emulated.jobs.values()},
        **{str(file): file.read_bytes() for file in airflow.home.rglob("*") if file.is_file()},
        **objects(aws),
        **layers(registry, finished_image(emulated)),
    }
    assert len(places) > 50
    assert [(name, secret) for name, content in places.items() for secret in secrets if secret in content] == []


def objects(aws: EmulatedAws) -> dict[str, bytes]:
    """Return all objects in the buckets of pipelines: specs, ledgers, results, values."""
    s3, found = aws.client("s3"), {}
    for bucket in s3.list_buckets()["Buckets"]:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
            for entry in page.get("Contents", ()):
                where = {"Bucket": bucket["Name"], "Key": entry["Key"]}
                found[f"s3://{bucket['Name']}/{entry['Key']}"] = s3.get_object(**where)["Body"].read()
    assert any(name.endswith("spec.json") for name in found)
    assert any(name.endswith("job.json") for name in found)
    return found


def finished_image(emulated: SageMaker) -> str:
    job = next(job for job in emulated.jobs.values() if job.name.startswith("aws-late-arrivals"))
    image: str = job.request["AlgorithmSpecification"]["TrainingImage"]
    return image.partition("/")[2]


def layers(registry: str, image: str) -> dict[str, bytes]:
    """Return the manifest, the configuration and all files of the layers that are on top of the base."""
    name, _, digest = image.partition("@")
    accepted = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    manifest = httpx.get(f"http://{registry}/v2/{name}/manifests/{digest}", headers=accepted)
    found = {"manifest": manifest.content}
    for blob in [manifest.json()["config"], *manifest.json()["layers"][1:]]:
        content = httpx.get(f"http://{registry}/v2/{name}/blobs/{blob['digest']}").content
        found[blob["digest"]] = content
        if blob["mediaType"].endswith("gzip"):
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as layer:
                found |= {
                    f"{blob['digest']}/{member.name}": layer.extractfile(member).read()  # type: ignore[union-attr]
                    for member in layer.getmembers()
                    if member.isfile()
                }
    assert any(name.endswith("late_arrivals.py") for name in found)
    return found
