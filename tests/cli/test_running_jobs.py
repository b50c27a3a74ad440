"""Commands on jobs that run: following their logs, and stopping them."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.cli.local_run import LocalRun
from airflow_stepops.cli.run_steps import RunSteps
from airflow_stepops.clouds.local.step_operator import LocalStepOperator
from airflow_stepops.images.builder import BuiltImage
from airflow_stepops.images.registry.layout import LayoutRepository
from airflow_stepops.jobs.attempt import attempt_directory, job_name
from airflow_stepops.jobs.known_job import stop
from airflow_stepops.jobs.launch import Launcher
from airflow_stepops.jobs.ledger import CANCEL, Ledger, LedgerEntry
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState
from airflow_stepops.runtime.spec import Attempt, JobSpec, StepSource
from tests.cli.conftest import Stepops
from tests.clouds.ground import build_image, wait_for

OPERATOR = LocalStepOperator(name="local")
STEPOPS = str(Path(sys.executable).with_name("stepops"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def image(home: Path) -> BuiltImage:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPOPS_HOME", str(home))
        return build_image(LayoutRepository(home / "images"), None)


@dataclass
class Jobs:
    """Launches jobs as tasks of a DAG do, and has them stopped in the end."""

    store: ArtifactStore
    service: JobService
    image: BuiltImage
    repository: LayoutRepository
    launched: list[str] = dataclasses.field(default_factory=list)

    def launch(self, run_id: str, step: str = "wait", *args: Any, map_index: int = -1) -> LedgerEntry:
        """Launch a step of ``tests/clouds/steps``."""
        spec, request = self.request(run_id, step, *args, map_index=map_index)
        new = LedgerEntry(spec.attempt, spec.directory, spec.attempt, "0", OPERATOR.document(), request.name)
        with Launcher(self.store, OPERATOR, lambda _: OPERATOR, print) as launcher:
            entry = launcher.launch(new, spec, request).entry
        wait_for(lambda: self.service.logs(entry.job_id).lines, f"a line of {entry.job_id}")
        return entry

    def request(
        self, run_id: str, step: str, *args: Any, map_index: int = -1, try_number: int = 1
    ) -> tuple[JobSpec, JobRequest]:
        """Return what a launch gives to the service."""
        attempt = Attempt("waiting", run_id, step, map_index, try_number, "instance", f"ti-{try_number}")
        source = StepSource("steps.py", "steps", step, "0" * 64)
        spec = JobSpec(attempt, source, self.store.root, attempt_directory(self.store.root, attempt), list(args))
        request = JobRequest(
            job_name(self.store.root, attempt),
            attempt,
            self.image.reference,
            spec.uri,
            artifact_root=self.store.root,
            repository=self.repository,
        )
        self.launched.append(request.name)
        return spec, request

    def state(self, entry: LedgerEntry) -> JobState:
        return self.service.describe(entry.job_id).state


@pytest.fixture
def jobs(home: Path, image: BuiltImage, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Jobs]:
    monkeypatch.setenv("STEPOPS_HOME", str(home))
    store = ArtifactStore((home / "artifacts").as_uri())
    found = Jobs(store, OPERATOR.connect(), image, LayoutRepository(home / "images"))
    yield found
    for name in found.launched:
        stop(found.service, name)


@pytest.fixture
def follower(jobs: Jobs) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``stepops logs -f`` beside the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [STEPOPS, "logs", *arguments, "--follow"]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_log_is_followed_until_the_job_has_ended(
    jobs: Jobs, stepops: Stepops, follower: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    entry = jobs.launch("followed", "clean_up", str(tmp_path / "cleaned"))
    following = follower("waiting", "followed", "clean_up")
    assert following.stdout is not None
    assert following.stdout.readline() == "waiting\n"
    assert following.poll() is None
    assert stepops("logs", "waiting", "followed", "clean_up").out == "waiting\n", "without -f it ends at once"
    said = stepops("cancel", "waiting", "followed")
    assert (said.code, said.out) == (0, f"clean_up: job {entry.job_name}: stopped\n")
    following.communicate(timeout=30)
    assert following.returncode == 0
    assert (tmp_path / "cleaned").read_text() == "clean", "the step was let clean up"


def test_what_runs_is_listed_until_it_is_cancelled_and_twice_is_fine(jobs: Jobs, stepops: Stepops) -> None:
    entry = jobs.launch("cancelled")

    def running() -> list[tuple[str, str]]:
        found = stepops("jobs list --running --json").json()
        return [(job["job_name"], job["state"]) for job in found if job["run_id"] == "cancelled"]

    assert running() == [(entry.job_name, "running")]
    assert stepops("runs", "describe", "waiting", "cancelled", "--json").json()["state"] == "running"
    assert stepops("cancel", "waiting", "cancelled", "wait").out == f"wait: job {entry.job_name}: stopped\n"
    assert jobs.state(entry) is JobState.STOPPED
    assert running() == []
    again = stepops("cancel", "waiting", "cancelled", "wait")
    assert (again.code, again.out) == (0, "There is nothing to stop: all jobs have ended.\n")
    run = stepops("runs", "describe", "waiting", "cancelled", "--json").json()
    assert (run["state"], run["steps"][0]["state"]) == ("failed", "stopped")
    error = run["steps"][0]["error"]
    assert (error["type"], error["message"]) == ("cancelled", "cancelled by 'stepops cancel'")
    ledger = Ledger(jobs.store, entry.attempt)
    assert ledger.claim(CANCEL)
    assert not ledger.claim("attempt-2"), "no later attempt may go on with it"


def test_one_instance_of_a_mapped_step_is_cancelled_and_then_all(jobs: Jobs, stepops: Stepops) -> None:
    entries = [jobs.launch("mapped", map_index=index) for index in range(3)]
    said = stepops("cancel", "waiting", "mapped", "wait", "--map-index", "1")
    assert said.out == f"wait[1]: job {entries[1].job_name}: stopped\n"
    assert [jobs.state(entry).value for entry in entries] == ["running", "stopped", "running"]
    said = stepops("cancel", "waiting", "mapped", "wait")
    assert sorted(said.out.splitlines()) == [f"wait[{i}]: job {entries[i].job_name}: stopped" for i in (0, 2)]
    assert {jobs.state(entry) for entry in entries} == {JobState.STOPPED}


def test_a_job_that_is_named_is_stopped_alone(jobs: Jobs, stepops: Stepops) -> None:
    entry = jobs.launch("two-jobs")
    spec, request = jobs.request("two-jobs", "wait", try_number=2)
    jobs.store.put(spec.uri, spec.to_json())
    status = jobs.service.submit(request)
    ledger = Ledger(jobs.store, spec.attempt)
    ledger.open(
        LedgerEntry(spec.attempt, spec.directory, spec.attempt, "0", OPERATOR.document(), request.name, status.id)
    )
    said = stepops("cancel", "waiting", "two-jobs", "--job", entry.job_name)
    assert said.out == f"wait: job {entry.job_name}: stopped\n"
    assert not jobs.service.describe(status.id).state.ended
    said = stepops("cancel", "waiting", "two-jobs", "--job", request.name)
    assert said.out == f"wait: job {request.name}: stopped\n"
    assert jobs.service.describe(status.id).state is JobState.STOPPED


@pytest.mark.parametrize("has_entry", [True, False])
def test_a_job_that_a_later_attempt_has_claimed_is_taken_from_that(
    jobs: Jobs, stepops: Stepops, has_entry: bool
) -> None:
    entry = jobs.launch(f"claimed-{has_entry}")
    later = dataclasses.replace(entry.attempt, try_number=2, ti_id="ti-2")
    taken = dataclasses.replace(entry, attempt=later)
    assert Ledger(jobs.store, entry.attempt).claim(taken.claim)
    if has_entry:  # else the attempt has claimed the job, and not yet written so
        Ledger(jobs.store, later).record(taken)
    assert stepops("cancel", "waiting", f"claimed-{has_entry}").code == 0
    assert jobs.state(entry) is JobState.STOPPED
    assert Ledger(jobs.store, later).claimant() == CANCEL


def test_a_job_that_is_about_to_be_submitted_cannot_be_stopped_yet(jobs: Jobs, stepops: Stepops) -> None:
    attempt = Attempt("waiting", "intended", "wait", -1, 1, "instance", "ti-1")
    directory = attempt_directory(jobs.store.root, attempt)
    name = job_name(jobs.store.root, attempt)
    Ledger(jobs.store, attempt).open(LedgerEntry(attempt, directory, attempt, "0", OPERATOR.document(), name))
    said = stepops("cancel", "waiting", "intended")
    assert (said.code, said.out) == (1, f"wait: job {name}: has not been submitted yet: cancel again when it is\n")
    assert stepops("logs", "waiting", "intended", "wait").err == (
        f"stepops: job {name} has not been submitted yet: try again when it is.\n"
    )
    assert Ledger(jobs.store, attempt).claim("attempt-2 ti-2"), "nobody has claimed it"


def test_a_job_whose_launcher_died_before_it_wrote_the_id_is_found_by_name(jobs: Jobs, stepops: Stepops) -> None:
    entry = jobs.launch("nameless")
    Ledger(jobs.store, entry.attempt).record(dataclasses.replace(entry, job_id="", state=""))
    assert stepops("logs", "waiting", "nameless", "wait").out == "waiting\n"
    assert stepops("cancel", "waiting", "nameless").out == f"wait: job {entry.job_name}: stopped\n"
    assert jobs.state(entry) is JobState.STOPPED


def test_a_job_that_ended_while_nobody_looked_is_not_called_running(jobs: Jobs, stepops: Stepops) -> None:
    entry = jobs.launch("unseen", "count", 3)
    wait_for(lambda: jobs.state(entry).ended, "the end of the job")
    jobs.store.delete(f"{entry.directory}/result.json")
    states = {job["run_id"]: job["state"] for job in stepops("jobs list --json").json()}
    assert states["unseen"] == "succeeded"
    assert stepops("cancel", "waiting", "unseen").out == f"count: job {entry.job_name}: had ended already: succeeded\n"


def test_a_service_that_cannot_be_asked_is_a_warning(jobs: Jobs, stepops: Stepops) -> None:
    attempt = Attempt("waiting", "foreign", "wait", -1, 1, "instance", "ti-1")
    entry = LedgerEntry(
        attempt, attempt_directory(jobs.store.root, attempt), attempt, "0", {"flavor": "lunar"}, "on-the-moon", "1"
    )
    Ledger(jobs.store, attempt).record(dataclasses.replace(entry, state="running"))
    said = stepops("jobs list --json")
    assert {job["job_name"]: job["state"] for job in said.json()}["on-the-moon"] == "running"
    assert said.err.startswith("warning: on-the-moon: lunar cannot be asked: ")
    cancelled = stepops("cancel", "waiting", "foreign")
    assert cancelled.code == 1
    assert cancelled.out.startswith("wait: job on-the-moon: could not be stopped: ")


def local_run(folder: Path, run_id: str, *steps: str) -> LocalRun:
    """Return a run of ``stepops run``, with as much of Airflow's database as is read of it."""
    with closing(sqlite3.connect(folder / "airflow.db")) as database, database:
        database.execute("CREATE TABLE dag_run (dag_id, run_id, state)")
        database.execute("CREATE TABLE task_instance (dag_id, task_id, map_index, try_number, state)")
        database.execute("INSERT INTO dag_run VALUES ('waiting', ?, 'running')", [run_id])
    return LocalRun(folder, "waiting", dict.fromkeys(steps))


def test_a_job_that_was_being_launched_when_its_run_was_interrupted_is_stopped_when_it_appears(
    jobs: Jobs, tmp_path: Path
) -> None:
    jobs.launch("interrupted")
    spec, late = jobs.request("interrupted", "clean_up", str(tmp_path / "cleaned"))
    jobs.store.put(spec.uri, spec.to_json())
    entry = LedgerEntry(spec.attempt, spec.directory, spec.attempt, "0", OPERATOR.document(), late.name)
    Ledger(jobs.store, spec.attempt).open(entry)
    told: list[str] = []

    def say(line: str) -> None:
        told.append(line)
        if len(told) == 1:  # the first look was too early for the other job
            jobs.service.submit(late)

    run = RunSteps(local_run(tmp_path, "interrupted", "wait", "clean_up"), say).stop()
    assert {step.label: step.state for step in run.steps} == {"wait": "stopped", "clean_up": "stopped"}
    assert told[-1] == f"  clean_up: job {late.name}: stopped"


def test_a_job_that_cannot_be_stopped_is_named_with_what_to_do(jobs: Jobs, tmp_path: Path) -> None:
    attempt = Attempt("waiting", "unstoppable", "wait", 2, 1, "instance", "ti-1")
    directory = attempt_directory(jobs.store.root, attempt)
    entry = LedgerEntry(attempt, directory, attempt, "0", {"flavor": "lunar"}, "on-the-moon", "1", "https://moon/1")
    Ledger(jobs.store, attempt).record(dataclasses.replace(entry, state="running"))
    told: list[str] = []
    run = RunSteps(local_run(tmp_path, "unstoppable", "wait"), told.append).stop()
    assert told[0].startswith("  wait[2]: job on-the-moon: could not be stopped: ")
    assert told[1:] == [
        "    See to it at https://moon/1",
        "    To try again: stepops cancel waiting unstoppable wait --map-index 2 --stack local",
    ]
    assert run.step("wait").state == "running"
