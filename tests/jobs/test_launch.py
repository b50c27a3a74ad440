"""One job for each attempt, whatever dies and however often it is launched."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.clouds.local.artifact_store import LocalArtifactStore
from airflow_stepops.clouds.local.container_registry import LocalContainerRegistry
from airflow_stepops.clouds.local.image_builder import OciImageBuilder
from airflow_stepops.errors import ArtifactNotFoundError, EndKind, JobRefusedError, LaunchStoppedError, SpecError
from airflow_stepops.jobs.attempt import attempt_directory, job_name
from airflow_stepops.jobs.known_job import describe, stop
from airflow_stepops.jobs.launch import Launch, Launcher
from airflow_stepops.jobs.ledger import CANCEL, Ledger, LedgerEntry, work_digest
from airflow_stepops.jobs.protocol import JobRequest, JobService, JobState, JobStatus
from airflow_stepops.runtime.spec import Attempt, JobSpec, StepSource
from airflow_stepops.stacks.components import ImageTarget, StepOperatorComponent
from airflow_stepops.stacks.models import Stack
from tests.jobs.stand_in import InMemoryService

ATTEMPT = Attempt("churn", "manual__1", "train", -1, 1, "instance", "ti-1")


class Operator(StepOperatorComponent):
    """A step operator whose jobs are at the service of a test; ``region`` says where they are.

    :param services: region → service; a region that is not there cannot be asked.
    """

    flavor: ClassVar[str] = "elsewhere"
    place: ClassVar[frozenset[str]] = frozenset({"region"})
    services: ClassVar[dict[str, Any]] = {}

    region: str = "west"
    size: str = "small"

    def target(self) -> ImageTarget:
        return ImageTarget(None, None)

    def connect(self) -> JobService:
        if self.region not in self.services:
            raise JobRefusedError(f"there is no region {self.region}", EndKind.PERMISSION)
        service: JobService = self.services[self.region]
        return service

    def account_key(self) -> str:
        return f"elsewhere:{self.region}"


class WorkerDiedError(BaseException):
    """Ends a launch in the middle, as the end of its process does: nothing that it calls answers any more."""


class Service(InMemoryService):
    """A service that the launching worker dies at, once."""

    def __init__(self) -> None:
        super().__init__()
        self.worker_dies = ""
        self.dead = False
        self.kill: tuple[str, Launcher] | None = None

    def submit(self, request: JobRequest) -> Any:
        self._die("before submit")
        self._kill("before submit")
        status = super().submit(request)
        self._die("after submit")
        self._kill("after submit")
        return status

    def _kill(self, moment: str) -> None:
        """Kill the task as Airflow does: a signal's handler runs while the launch waits for an answer."""
        if self.kill and self.kill[0] == moment:
            self.kill[1].stop()

    def _die(self, moment: str) -> None:
        if self.worker_dies == moment:
            self.worker_dies, self.dead = "", True
            raise WorkerDiedError(moment)

    def find(self, name: str) -> JobStatus | None:
        if self.dead:
            self.dead = False
            raise WorkerDiedError("before submit or after")
        return super().find(name)


@dataclasses.dataclass
class Ground:
    """A store, a service, and launches of the attempts of one task."""

    store: ArtifactStore
    service: Service
    operator: Operator = dataclasses.field(default_factory=lambda: Operator(name="here"))
    said: list[str] = dataclasses.field(default_factory=list)

    def launch(
        self,
        try_number: int = 1,
        *,
        rate: float = 0.1,
        image: str = "image@sha256:1",
        recipe: str = "requirements",
        resources: Mapping[str, Any] | None = None,
        last_try: int = 1,
        launcher: Launcher | None = None,
        **fields: Any,
    ) -> Launch:
        spec = self.spec(try_number, rate, **fields)
        request = JobRequest(job_name(self.store.root, spec.attempt), spec.attempt, image, spec.uri)
        new = LedgerEntry(
            spec.attempt,
            spec.directory,
            spec.attempt,
            work_digest(spec, recipe, resources or {}),
            self.operator.document(),
            request.name,
            image=image,
            last_try=last_try,
        )
        with launcher or self.launcher() as launching:
            return launching.launch(new, spec, request)

    def launcher(self) -> Launcher:
        return Launcher(self.store, self.operator, self.stack.operator_of, self.said.append)

    @property
    def stack(self) -> Stack:
        Operator.services["west"] = self.service
        artifacts = LocalArtifactStore(path=self.store.root.removeprefix("file://"))
        return Stack("tests", artifacts, LocalContainerRegistry(), OciImageBuilder(), (self.operator,))

    def spec(self, try_number: int, rate: float = 0.1, **fields: Any) -> JobSpec:
        attempt = dataclasses.replace(ATTEMPT, **{"try_number": try_number, "ti_id": f"ti-{try_number}", **fields})
        source = StepSource("dag_file.py", "dag_file", "train", "0" * 64)
        return JobSpec(attempt, source, self.store.root, attempt_directory(self.store.root, attempt), [rate])

    def ledger(self, try_number: int = 1) -> Ledger:
        return Ledger(self.store, attempt(try_number))

    def names(self) -> list[str]:
        """Names of the jobs that were created, in order."""
        return [request.name for request in self.service.requests]

    def name(self, try_number: int) -> str:
        return job_name(self.store.root, attempt(try_number))


def attempt(try_number: int) -> Attempt:
    return dataclasses.replace(ATTEMPT, try_number=try_number, ti_id=f"ti-{try_number}")


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(ArtifactStore((tmp_path / "store").as_uri()), Service())


def test_the_first_launch_writes_spec_and_ledger_and_submits(ground: Ground) -> None:
    launch = ground.launch()
    spec = ground.spec(1)
    assert ground.store.get(spec.uri) == spec.to_json()
    assert ground.ledger().read() == launch.entry
    assert (launch.entry.job_id, launch.entry.job_name) == (ground.name(1), ground.name(1))
    assert (launch.entry.state, launch.status.state) == ("pending", JobState.PENDING)
    assert launch.entry.console_url == f"https://console.example.com/{ground.name(1)}"
    assert launch.entry.directory == spec.directory
    assert launch.submitted_at == launch.status.created_at


@pytest.mark.parametrize("moment", ["before submit", "after submit"])
def test_a_worker_that_dies_while_it_launches_leaves_one_job_for_its_successor(ground: Ground, moment: str) -> None:
    ground.service.worker_dies = moment
    with pytest.raises(WorkerDiedError):
        ground.launch()
    intention = ground.ledger().read()
    assert intention is not None
    assert (intention.job_name, intention.job_id, intention.state) == (ground.name(1), "", "")
    again = ground.launch()
    assert ground.names() == [ground.name(1)]
    assert again.entry.job_id == ground.name(1)
    assert ground.ledger().read() == again.entry


@pytest.mark.parametrize("state", list(JobState))
def test_a_launch_that_was_recorded_is_gone_on_with_whatever_its_job_did(ground: Ground, state: JobState) -> None:
    first = ground.launch()
    ground.service.set(first.entry.job_id, state)
    again = ground.launch()
    assert ground.names() == [ground.name(1)]
    assert ground.service.calls["submit"] == 1
    assert again.entry == dataclasses.replace(first.entry, state=state.value)
    assert again.submitted_at == first.submitted_at
    assert ground.said == [f"goes on with job {ground.name(1)} of attempt 1"]


def test_a_recorded_job_that_the_service_forgot_has_failed_and_is_not_launched_again(ground: Ground) -> None:
    ground.launch()
    del ground.service.jobs[ground.name(1)]
    again = ground.launch()
    assert again.status.state is JobState.FAILED
    assert ground.names() == [ground.name(1)]


@pytest.mark.parametrize("round_number", range(20))
def test_two_launches_of_an_attempt_at_the_same_time_make_one_job(ground: Ground, round_number: int) -> None:
    together = threading.Barrier(2)

    def launch(_: int) -> Launch:
        together.wait(10)
        return ground.launch()

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(launch, range(2))
    assert ground.names() == [ground.name(1)]
    assert one.entry == other.entry == ground.ledger().read()


@pytest.mark.parametrize("round_number", range(20))
def test_two_launches_of_a_second_attempt_at_the_same_time_both_adopt_the_job(
    ground: Ground, round_number: int
) -> None:
    ground.launch()
    together = threading.Barrier(2)

    def launch(_: int) -> Launch:
        together.wait(10)
        return ground.launch(2)

    with ThreadPoolExecutor(2) as threads:
        launches = list(threads.map(launch, range(2)))
    assert {launch.entry.job_id for launch in launches} == {ground.name(1)}
    assert ground.names() == [ground.name(1)]
    assert ground.service.calls["cancel"] == 0


def test_an_answer_that_was_lost_is_asked_for_again(ground: Ground) -> None:
    ground.service.fail("submit answer", 1)
    assert ground.launch().entry.job_id == ground.name(1)
    assert ground.names() == [ground.name(1)]
    assert ground.service.calls["submit"] == 2


@pytest.mark.parametrize("kind", [EndKind.INVALID_REQUEST, EndKind.PERMISSION, EndKind.IMAGE, EndKind.INFRASTRUCTURE])
def test_a_refusal_keeps_its_kind_and_is_in_the_ledger_without_a_job(ground: Ground, kind: EndKind) -> None:
    ground.service.refuse(JobRefusedError("no such instance type", kind))
    with pytest.raises(JobRefusedError, match="no such instance type") as refused:
        ground.launch()
    assert refused.value.kind is kind
    entry = ground.ledger().read()
    assert entry is not None
    assert (entry.job_id, entry.state, entry.end_kind, entry.end_reason) == (
        "",
        "failed",
        kind.value,
        "no such instance type",
    )


@pytest.mark.parametrize("next_try", [1, 2])
def test_after_a_refusal_the_same_attempt_and_the_next_may_launch(ground: Ground, next_try: int) -> None:
    ground.service.refuse(JobRefusedError("there is no region eu-wset-1"))
    with pytest.raises(JobRefusedError):
        ground.launch()
    ground.service.refuse(None)
    assert ground.launch(next_try).entry.job_name == ground.name(next_try)
    assert ground.names() == [ground.name(next_try)]
    assert ground.service.calls["find"] == 0, "with the settings that were refused it may never answer"


def test_a_refusal_does_not_deny_the_job_that_a_dead_worker_may_have_launched(ground: Ground) -> None:
    ground.service.worker_dies = "before submit"
    with pytest.raises(WorkerDiedError):
        ground.launch()
    ground.service.refuse(JobRefusedError("the engine is away", EndKind.INFRASTRUCTURE))
    with pytest.raises(JobRefusedError):
        ground.launch()
    ground.service.refuse(None)
    ground.service.set(ground.name(1), JobState.RUNNING)  # as of a service that took long to make it
    assert ground.launch(2).entry.job_id == ground.name(1)
    assert ground.names() == []


def test_an_attempt_that_is_run_again_goes_on_with_the_job_that_a_dead_worker_launched(ground: Ground) -> None:
    ground.service.worker_dies = "after submit"
    with pytest.raises(WorkerDiedError):
        ground.launch()
    ground.service.refuse(JobRefusedError("the engine takes no new jobs", EndKind.INFRASTRUCTURE))
    assert ground.launch().entry.job_id == ground.name(1)


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED])
def test_a_new_attempt_goes_on_with_the_job_of_one_whose_worker_died(ground: Ground, state: JobState) -> None:
    first = ground.launch()
    ground.service.set(first.entry.job_id, state)
    second = ground.launch(2)
    assert ground.names() == [ground.name(1)]
    assert second.entry == dataclasses.replace(first.entry, attempt=attempt(2), state=state.value)
    assert (second.entry.directory, second.entry.job_attempt) == (first.entry.directory, ATTEMPT)
    assert ground.said == [f"goes on with job {ground.name(1)} of attempt 1"]


def test_a_job_is_found_that_was_submitted_by_a_worker_that_died_before_it_wrote_so(ground: Ground) -> None:
    ground.service.worker_dies = "after submit"
    with pytest.raises(WorkerDiedError):
        ground.launch()
    assert ground.launch(2).entry.job_id == ground.name(1)
    assert ground.names() == [ground.name(1)]


def test_a_third_attempt_goes_on_with_a_job_that_the_second_had_gone_on_with(ground: Ground) -> None:
    ground.launch()
    ground.service.set(ground.name(1), JobState.RUNNING)
    ground.launch(2)
    third = ground.launch(3)
    assert third.status.state is JobState.RUNNING
    assert (third.entry.job_id, third.entry.job_attempt) == (ground.name(1), ATTEMPT)
    assert ground.names() == [ground.name(1)]
    assert ground.service.calls["cancel"] == 0


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.STOPPED])
def test_a_new_attempt_launches_a_job_of_its_own_after_one_that_failed(ground: Ground, state: JobState) -> None:
    ground.launch()
    ground.service.set(ground.name(1), state)
    assert ground.launch(2).entry.job_id == ground.name(2)
    assert ground.names() == [ground.name(1), ground.name(2)]
    assert ground.service.calls["cancel"] == 0


def test_a_cleared_task_that_had_succeeded_runs_again(ground: Ground) -> None:
    first = ground.launch()
    ground.service.set(ground.name(1), JobState.SUCCEEDED)
    ground.ledger().record(dataclasses.replace(first.entry, state="succeeded"))
    assert ground.launch(2, last_try=2).entry.job_id == ground.name(2)


def test_a_success_that_a_dead_worker_wrote_down_but_did_not_tell_is_that_of_the_next_try(ground: Ground) -> None:
    first = ground.launch()
    ground.service.set(ground.name(1), JobState.SUCCEEDED)
    ground.ledger().record(dataclasses.replace(first.entry, state="succeeded", ended_at=1.0))
    for try_number in (2, 3):
        launch = ground.launch(try_number)
        assert (launch.entry.job_id, launch.status.state) == (ground.name(1), JobState.SUCCEEDED)
    assert ground.names() == [ground.name(1)]
    assert ground.launch(4, last_try=4).entry.job_id == ground.name(4)


@pytest.mark.parametrize("change", [{"rate": 0.2}, {"recipe": "other requirements"}, {"resources": {"gpus": 1}}])
def test_a_job_of_other_work_is_stopped_before_a_new_one_is_launched(ground: Ground, change: dict[str, Any]) -> None:
    ground.launch()
    ground.service.set(ground.name(1), JobState.RUNNING)
    launch = ground.launch(2, **change)
    assert ground.service.jobs[ground.name(1)].state is JobState.STOPPED
    assert launch.entry.job_id == ground.name(2)
    assert ground.said == [f"stops job {ground.name(1)} of attempt 1: it is not wanted any more"]
    stopped = ground.ledger(1).read()
    assert stopped is not None
    assert (stopped.state, stopped.end_kind) == ("stopped", "cancelled")
    assert stopped.end_reason == "attempt 2 did not want it any more"
    assert not ground.ledger().claim("attempt-3 ti-3")


@pytest.mark.parametrize("moment", ["before submit", "after submit"])
def test_a_task_that_is_killed_while_it_launches_leaves_no_job_running_and_the_next_try_begins_anew(
    ground: Ground, moment: str
) -> None:
    launcher = ground.launcher()
    ground.service.kill = moment, launcher
    with pytest.raises(LaunchStoppedError):
        ground.launch(launcher=launcher)
    assert ground.service.jobs[ground.name(1)].state is JobState.STOPPED
    ground.service.set(ground.name(1), JobState.RUNNING)  # as of a service that has not yet begun to stop it
    assert ground.launch(2).entry.job_id == ground.name(2)


class Locked(Service):
    """A service whose calls take turns, as the clients of Google and Azure do for their tokens."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()

    def submit(self, request: JobRequest) -> Any:
        with self._turn:
            status = super().submit(request)
            signal.raise_signal(signal.SIGUSR1)
            return status

    def find(self, name: str) -> JobStatus | None:
        assert self._turn.acquire(timeout=5), "the handler waits for who was interrupted"
        self._turn.release()
        return super().find(name)


def test_the_handler_of_a_signal_waits_for_no_lock_that_the_launch_holds(ground: Ground) -> None:
    ground.service = Locked()
    launcher = ground.launcher()
    before = signal.signal(signal.SIGUSR1, lambda *_: launcher.stop())
    try:
        with pytest.raises(LaunchStoppedError):
            ground.launch(launcher=launcher)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ground.service.jobs[ground.name(1)].state is JobState.STOPPED
    assert ground.ledger().claimant() == CANCEL


def test_a_launch_that_is_interrupted_by_a_timeout_leaves_no_job(ground: Ground) -> None:
    class Interrupted(Service):
        def submit(self, request: JobRequest) -> Any:
            super().submit(request)
            raise KeyboardInterrupt  # what Airflow raises is no Exception either

    ground.service = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        ground.launch()
    assert ground.service.jobs[ground.name(1)].state is JobState.STOPPED
    assert ground.ledger().claimant() == CANCEL


def test_a_task_that_is_killed_before_it_launches_launches_nothing(ground: Ground) -> None:
    launcher = ground.launcher()
    launcher.stop()
    with pytest.raises(LaunchStoppedError):
        ground.launch(launcher=launcher)
    assert ground.names() == []


def test_a_launch_that_is_stopped_leaves_a_job_that_a_later_attempt_goes_on_with(ground: Ground) -> None:
    launcher = ground.launcher()
    ground.launch(launcher=launcher)
    ground.launch(2)
    launcher.stop()
    assert ground.service.jobs[ground.name(1)].state is JobState.PENDING


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.SUCCEEDED])
def test_a_task_that_a_person_has_cleared_begins_anew(ground: Ground, state: JobState) -> None:
    ground.launch(last_try=3)
    ground.service.set(ground.name(1), state)
    assert ground.launch(2, last_try=4).entry.job_id == ground.name(2)
    assert ground.service.jobs[ground.name(1)].state.ended


def test_a_job_that_a_person_asked_to_end_is_not_adopted(ground: Ground) -> None:
    ground.launch()
    ground.service.set(ground.name(1), JobState.RUNNING)
    assert ground.ledger().claim(CANCEL)
    assert ground.launch(2).entry.job_id == ground.name(2)
    assert ground.service.jobs[ground.name(1)].state is JobState.STOPPED


def test_of_several_jobs_that_run_the_latest_is_adopted_and_the_others_are_stopped(ground: Ground) -> None:
    first = ground.launch(1, rate=1).entry
    ground.launch(2, rate=2)  # by other inputs, so that the second does not adopt the first
    for number in (1, 2):
        ground.service.set(ground.name(number), JobState.RUNNING)
    ground.ledger(1).record(first)  # as if the second attempt had died while it stopped the first one's job
    assert ground.launch(3, rate=2).entry.job_id == ground.name(2)
    assert ground.service.jobs[ground.name(1)].state is JobState.STOPPED
    assert ground.service.jobs[ground.name(2)].state is JobState.RUNNING


@pytest.mark.parametrize("other", [{"map_index": 3}, {"task_id": "test"}, {"run_id": "manual__2"}, {"dag_id": "other"}])
def test_the_jobs_of_other_tasks_are_nobody_elses(ground: Ground, other: dict[str, Any]) -> None:
    ground.launch()
    assert ground.launch(2, **other).entry.job_name != ground.name(1)
    assert len(ground.service.requests) == 2
    assert ground.service.calls["find"] == 0
    assert ground.service.jobs[ground.name(1)].state is JobState.PENDING


def test_an_earlier_ledger_that_cannot_be_read_stops_the_launch_and_is_named(ground: Ground) -> None:
    ground.launch()
    uri = f"{ground.spec(1).directory}/job.json"
    ground.store.put(uri, ground.store.get(uri)[:-20])
    with pytest.raises(SpecError) as refused:
        ground.launch(2)
    assert uri in str(refused.value)
    assert ground.names() == [ground.name(1)], "the job of the first attempt may still run"


def test_without_a_spec_in_the_store_nothing_is_submitted(ground: Ground) -> None:
    launch = ground.launch()
    seen: list[bytes] = []

    class Reading(Service):
        def submit(self, request: JobRequest) -> Any:
            seen.append(ground.store.get(request.spec_uri))
            return super().submit(request)

    with pytest.raises(ArtifactNotFoundError):
        ground.store.get(ground.spec(2).uri)
    ground.service = Reading()
    ground.service.set(launch.entry.job_id, JobState.FAILED)
    ground.launch(2)
    assert seen == [ground.spec(2).to_json()]


def running(service: InMemoryService) -> None:
    service.set("a", JobState.RUNNING)


def ended(service: InMemoryService) -> None:
    service.set("a", JobState.SUCCEEDED)


def unknown(_: InMemoryService) -> None:
    """Know no job."""


@pytest.mark.parametrize(
    ("prepare", "end"), [(running, JobState.STOPPED), (ended, JobState.SUCCEEDED), (unknown, JobState.FAILED)]
)
def test_stopping_ends_a_job_and_is_fine_where_there_is_nothing_to_end(
    prepare: Callable[[InMemoryService], None], end: JobState
) -> None:
    service = InMemoryService()
    prepare(service)
    service.fail("cancel", 1)
    assert stop(service, "a").state is end


def test_stopping_waits_for_the_end() -> None:
    class Slow(InMemoryService):
        def cancel(self, job_id: str) -> None:
            self.set(job_id, JobState.STOPPING)

        def describe(self, job_id: str) -> Any:
            if self.calls["describe"] == 3:
                self.set(job_id, JobState.STOPPED)
            return super().describe(job_id)

    service = Slow()
    service.set("a", JobState.RUNNING)
    assert stop(service, "a").state is JobState.STOPPED
    assert service.calls["describe"] == 4


def test_describing_is_patient_and_a_forgotten_job_has_failed() -> None:
    service = InMemoryService()
    service.set("a", JobState.RUNNING)
    service.fail("describe", 1)
    assert describe(service, "a").state is JobState.RUNNING
    forgotten = describe(service, "b")
    assert (forgotten.id, forgotten.state, forgotten.kind) == ("b", JobState.FAILED, None)
    assert forgotten.reason == "b"
