"""What a job leaves may be a stranger's work: Airflow takes no result but that of its attempt, from its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.jobs.archive import RunArchive
from tests.airflow_env import FinishedRun, InProcessAirflow

#: A step that writes its own result and leaves before the runtime can.
FORGER = """\
import json
import os

from airflow.sdk import task

from airflow_stepops.dag import pipeline, step


@step(step_operator=True)
def forge(changes: dict) -> object:
    spec = json.load(open(os.environ["STEPOPS_SPEC"].removeprefix("file://")))
    reference = {
        "uri": changes["uri"].replace("ROOT", spec["root"]),
        "materializer": "json", "type": "list", "blake3": "0" * 64, "size": 1, "metadata": {},
    }
    result = {
        "version": spec["version"],
        "attempt": {**spec["attempt"], **changes["attempt"]},
        "status": "succeeded",
        "outputs": {"return_value": reference},
        "values": {},
    }
    with open(spec["directory"].removeprefix("file://") + "/result.json", "w") as file:
        json.dump(result, file)
    os._exit(0)


@task
def use(value):
    return value.load()


@pipeline
def forged(changes={}):
    use(forge(changes))
"""

SWAPPED = """\
from pathlib import Path

from airflow.sdk import task

from airflow_stepops.dag import pipeline, step


@step
def model():
    return ("a", "model")


@task
def swap(found, trace):
    import pickle

    class Intruder:
        def __reduce__(self):
            return Path.write_text, (Path(trace), "was here")

    Path(found.uri.removeprefix("file://")).write_bytes(pickle.dumps(Intruder()))
    return found


@step(step_operator=True)
def in_a_job(found):
    return str(found)


@step
def in_the_worker(found):
    return str(found)


@pipeline
def swapped(trace=""):
    found = swap(model(), trace)
    in_a_job(found)
    in_the_worker(found)
"""


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEPOPS_HOME", str(shared_home))
    return shared_home


def problems(home: Path, run: FinishedRun, task: str) -> str:
    """Return what the store tells of a step that failed, and of documents that nobody may believe."""
    (root,) = [path.parent for path in home.rglob("runs") if path.parent.name == "artifacts"]
    found = RunArchive(ArtifactStore(root.as_uri())).run(run.dag_id, run.run_id)
    error = found.step(task).error
    return "\n".join([*found.problems, "" if error is None else f"{error.type}: {error.message}"])


@pytest.mark.parametrize(
    ("uri", "attempt", "said"),
    [
        ("file:///etc/passwd", {}, "is no object under the artifact store"),
        ("s3://bucket/of/another/stack.pkl", {}, "is no object under the artifact store"),
        ("ROOT/runs/../../../etc/passwd", {}, "is no object under the artifact store"),
        ("ROOT/runs/x", {"try_number": 2}, "not of Attempt"),
        ("ROOT/runs/x", {"dag_id": "other"}, "not of Attempt"),
        ("ROOT/runs/x", {"ti_id": "of the run that was deleted"}, "not of Attempt"),
    ],
)
def test_a_result_that_points_elsewhere_or_is_of_another_attempt_is_no_result(
    airflow_in_process: InProcessAirflow, home: Path, uri: str, attempt: dict[str, object], said: str
) -> None:
    airflow_in_process.write("forged.py", FORGER)
    run = airflow_in_process.run("forged", {"changes": {"uri": uri, "attempt": attempt}})
    assert run.states == {"forge": "failed", "use": "upstream_failed"}
    assert run.xcom("forge") is None
    found = problems(home, run, "forge")
    assert "lost_result" in found
    assert said in found


def test_a_pickle_that_was_put_in_the_place_of_another_runs_neither_in_a_job_nor_in_the_worker(
    airflow_in_process: InProcessAirflow, home: Path, tmp_path: Path
) -> None:
    airflow_in_process.write("swapped.py", SWAPPED)
    run = airflow_in_process.run("swapped", {"trace": str(tmp_path / "trace")})
    assert run.states == {"model": "success", "swap": "success", "in_a_job": "failed", "in_the_worker": "failed"}
    assert not (tmp_path / "trace").exists()
    for task in ("in_a_job", "in_the_worker"):
        assert "IntegrityError: file:///" in problems(home, run, task)
