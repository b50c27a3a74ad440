"""The example on the emulated Azure under a real scheduler and triggerer; nothing secret is left anywhere."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.clouds.azure.acr import Acr
from tests.clouds.azure.azureml import AzureML
from tests.clouds.azure.emulated import SECRET, EmulatedAzure
from tests.engines import run
from tools.airflow_home import LocalAirflow, running_airflow

EXAMPLES = Path(__file__).resolve().parents[3] / "dags_examples"
FOR_EVER = """\
import time

from airflow_stepops.dag import Image, pipeline, step


@step(step_operator=True, image=Image(python="3.11"))
def wait():
    print("waiting", flush=True)
    time.sleep(3600)


@pipeline(stack="azure")
def for_ever():
    wait()
"""


@pytest.fixture(scope="module")
def airflow(airflow_settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    folder = tmp_path_factory.mktemp("scheduled")
    dags = folder / "dags"
    dags.mkdir()
    for name in ("late_arrivals.py", "azure_late_arrivals.py"):
        (dags / name).write_text((EXAMPLES / name).read_text())
    (dags / "for_ever.py").write_text(FOR_EVER)
    with running_airflow(folder / "airflow", dags, settings=airflow_settings) as running:
        for dag in ("azure_late_arrivals", "for_ever"):
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
    started = airflow.client.trigger("azure_late_arrivals", {"airport": "LGA", "learning_rate": 0.2})
    assert airflow.client.wait("azure_late_arrivals", started, timeout=300) == "success"
    outputs: dict[str, Any] = airflow.client.xcom("azure_late_arrivals", started, "evaluate")
    return outputs


def until(happened: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


def test_the_links_lead_to_the_studio_while_the_job_runs(
    waiting: tuple[str, dict[str, Any]], seen_while_waiting: dict[str, Any]
) -> None:
    links, job = seen_while_waiting["links"], waiting[1]["job_name"]
    assert sorted(links) == ["Artifacts", "Image", "Job", "Job logs"]
    assert job in links["Job"]
    assert job in links["Job logs"]


def test_the_log_of_the_job_and_its_progress_are_in_the_task_s_log(
    airflow: LocalAirflow, waiting: tuple[str, dict[str, Any]]
) -> None:
    def log() -> list[str]:
        return airflow.client.log("for_ever", waiting[0], "wait")

    assert "waiting" in log()
    until(lambda: any(line.startswith("[stepops] job is running") for line in log()))


def test_the_example_ends_with_its_outputs(finished: dict[str, Any]) -> None:
    assert 0.55 < finished["scores"]["auc"] < 0.8
    assert finished["probabilities"]["__data__"]["blake3"]


def test_a_task_that_a_person_fails_stops_its_job(
    airflow: LocalAirflow, finished: dict[str, Any], waiting: tuple[str, dict[str, Any]], workspace: AzureML
) -> None:
    run, told = waiting
    job = workspace.jobs[told["job_name"]]
    assert job.status == "Running"
    airflow.client.set_state("for_ever", run, "wait", "failed")
    until(lambda: job.status == "Canceled")
    others = [other for name, other in workspace.jobs.items() if name.startswith("azure-late")]
    assert {other.status for other in others} == {"Completed"}


def test_no_secret_is_in_anything_that_was_written_or_sent(
    airflow: LocalAirflow,
    finished: dict[str, Any],
    seen_while_waiting: dict[str, Any],
    workspace: AzureML,
    azure: EmulatedAzure,
    registry_of_azure: tuple[Acr, str],
    airflow_settings: dict[str, str],
    tmp_path: Path,
) -> None:
    acr, _ = registry_of_azure
    secrets = [secret.encode() for secret in (SECRET, *azure.tokens, *acr.given)]
    assert len(secrets) > 2
    places = {
        "trigger": seen_while_waiting["trigger"].encode(),
        "stack file": Path(airflow_settings["STEPOPS_CONFIG"]).read_bytes(),
        **{f"request of {name}": json.dumps(job.sent).encode() for name, job in workspace.jobs.items()},
        **{str(file): file.read_bytes() for file in airflow.home.rglob("*") if file.is_file()},
        **objects(workspace, Path(airflow_settings["STEPOPS_CONFIG"])),
        **layers(f"docker://{acr.registry}/{finished_image(workspace)}", acr, tmp_path),
    }
    assert len(places) > 50
    assert [(name, secret) for name, content in places.items() for secret in secrets if secret in content] == []


def objects(workspace: AzureML, stack_file: Path) -> dict[str, bytes]:
    """Return all objects in the container of pipelines: specs, ledgers, results, values."""
    name = yaml.safe_load(stack_file.read_text())["artifact_stores"]["blobs"]["container"]
    container = workspace.compute.blobs.get_container_client(name)
    found = {blob.name: container.download_blob(blob.name).readall() for blob in container.list_blobs()}
    assert any(name.endswith("spec.json") for name in found)
    assert any(name.endswith("job.json") for name in found)
    return found


def finished_image(workspace: AzureML) -> str:
    job = next(job for name, job in workspace.jobs.items() if name.startswith("azure-late-arrivals"))
    return job.image.partition("/")[2]


def layers(image: str, acr: Acr, folder: Path) -> dict[str, bytes]:
    """Return the manifest, the configuration and all files of the layers that are on top of the base."""
    login = f"workspace:{acr.passwords['workspace']}"
    run("skopeo", "copy", "--quiet", "--src-tls-verify=false", "--src-creds", login, image, f"dir:{folder}")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    found = {"manifest": (folder / "manifest.json").read_bytes()}
    for blob in [manifest["config"], *manifest["layers"][1:]]:
        content = (folder / blob["digest"].removeprefix("sha256:")).read_bytes()
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
