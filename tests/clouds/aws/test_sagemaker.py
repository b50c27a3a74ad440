"""The step operator ``sagemaker`` on an emulated AWS that really runs the images."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_stepops.clouds.aws.artifact_store import S3ArtifactStore
from airflow_stepops.clouds.aws.step_operator import SageMakerStepOperator
from airflow_stepops.errors import EndKind, JobRefusedError, TransientServiceError
from airflow_stepops.images.registry.client import RegistryClient
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.protocol import JobRequest, JobState
from tests.clouds.aws.emulated import ACCESS_KEY, REGION, SECRET_KEY, EmulatedAws
from tests.clouds.aws.sagemaker import ROLE, SageMaker
from tests.clouds.ground import Ground, all_lines, build_image, ended, running
from tests.clouds.test_job_service import (  # noqa: F401 - they run here with the ground below
    test_a_job_is_found_by_its_name,
    test_a_job_runs_the_image_and_leaves_its_result,
    test_a_job_without_a_log_has_no_lines,
    test_a_step_that_raises_shows_its_traceback,
    test_an_unknown_job_is_said_to_be_unknown,
    test_another_process_goes_on_at_the_cursor,
    test_no_line_is_lost_or_repeated_while_the_job_prints,
    test_submitting_again_returns_the_job_that_is_there,
    test_two_launchers_at_once_launch_one_job,
)
from tests.engines import BASE_PYTHON
from tests.images.faults import FaultyProxy, faulty_proxy


@dataclass(frozen=True)
class OnSageMaker(Ground):
    """A ground whose jobs are told where the artifacts are."""

    component: SageMakerStepOperator
    values: S3ArtifactStore

    def request(self, step: str, *args: Any, secrets: dict[str, str] | None = None, **facts: Any) -> JobRequest:
        facts.setdefault("environment", self.values.job_environment())
        return super().request(step, *args, secrets=secrets, **facts)

    def having(self, **settings: Any) -> OnSageMaker:
        """Return the ground with other settings of the step operator."""
        component = self.component.overridden(settings)
        return dataclasses.replace(self, component=component, connect=component.connect)


@pytest.fixture(scope="session")
def sagemaker(
    aws: EmulatedAws, emulated: SageMaker, at_home: pytest.MonkeyPatch, registry: str, base_image: str
) -> OnSageMaker:
    """A place to run jobs in, reached through an Airflow connection."""
    bucket = f"jobs-{uuid.uuid4().hex}"
    aws.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    extra = {"region_name": REGION, "endpoint_url": aws.url}
    connection = {"conn_type": "aws", "login": ACCESS_KEY, "password": SECRET_KEY, "extra": extra}
    at_home.setenv("AIRFLOW_CONN_JOBS_AWS", json.dumps(connection))
    values = S3ArtifactStore(bucket=bucket, prefix="team", connection="jobs_aws")
    component = SageMakerStepOperator(role=ROLE, connection="jobs_aws", base_image=base_image)
    repository = RegistryClient(f"{registry}/clouds/sagemaker")
    return OnSageMaker(
        connect=component.connect,
        kill=lambda job_id: emulated.podman.run("kill", "--signal", "KILL", f"{job_id}-algo-1") and None,
        repository=repository,
        image=build_image(repository, base_image, python=BASE_PYTHON),
        store=values.open(),
        component=component,
        values=values,
    )


@pytest.fixture(params=["training", "processing"])
def ground(request: pytest.FixtureRequest, sagemaker: OnSageMaker) -> OnSageMaker:
    """Both kinds of job, for the suite of all job services."""
    return sagemaker.having(job_type=request.param)


def test_a_failed_job_has_exit_code_kind_and_reason(ground: OnSageMaker) -> None:
    service, request = ground.connect(), ground.request("leave", 7)
    service.submit(request)
    status = ended(service, request.name)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.USER_CODE, 7)
    assert status.reason == "AlgorithmError: , exit code: 7"


def test_a_killed_container_is_the_machine_s_failure(ground: OnSageMaker) -> None:
    service, request = ground.connect(), ground.request("wait")
    service.submit(request)
    running(service, request.name)
    ground.kill(request.name)
    status = ended(service, request.name)
    assert (status.state, status.kind, status.exit_code) == (JobState.FAILED, EndKind.INFRASTRUCTURE, -9)


def test_a_cancelled_job_is_asked_to_stop_and_leaves_a_result(ground: OnSageMaker) -> None:
    service, request = ground.connect(), ground.request("wait")
    service.submit(request)
    running(service, request.name)
    service.cancel(request.name)
    service.cancel(request.name)
    assert ended(service, request.name).kind is EndKind.CANCELLED
    assert ground.result(request).status == "stopped"
    service.cancel(request.name)


def test_a_job_that_is_cancelled_before_it_runs_never_runs(sagemaker: OnSageMaker) -> None:
    service, request = sagemaker.connect(), sagemaker.request("wait")
    service.submit(request)
    service.cancel(request.name)
    assert ended(service, request.name).kind is EndKind.CANCELLED
    assert service.logs(request.name).lines == []


def test_a_job_that_runs_too_long_is_stopped_by_the_service(ground: OnSageMaker) -> None:
    service, request = ground.connect(), ground.request("wait", timeout=2)
    assert service.enforces_timeout
    service.submit(request)
    status = ended(service, request.name)
    assert status.kind is EndKind.TIMEOUT
    assert "longer than it may" in status.reason


def test_jobs_that_have_changed_since_are_seen(ground: OnSageMaker) -> None:
    service, before, since = ground.connect(), ground.request("add", 1, 1), time.time()
    service.submit(before)
    ended(service, before.name)
    stopped, done = ground.request("wait"), ground.request("add", 1, 2)
    for request in (stopped, done):
        service.submit(request)
    running(service, stopped.name)
    ended(service, done.name)
    changed = ground.connect().changed(since)
    assert {changed[before.name].state, changed[done.name].state} == {JobState.SUCCEEDED}
    if ground.component.job_type == "training":
        assert changed[stopped.name].state is JobState.RUNNING
    else:  # summaries of processing jobs do not tell whether they run
        assert stopped.name not in changed
    since = ended(service, done.name).ended_at + 0.001
    service.cancel(stopped.name)
    ended(service, stopped.name)
    changed = service.changed(since)
    assert changed[stopped.name].state is JobState.STOPPED
    assert before.name not in changed


def test_an_image_that_is_not_there_is_no_failure_of_the_step(sagemaker: OnSageMaker, registry: str) -> None:
    service = sagemaker.connect()
    request = sagemaker.request("add", 1, 1, image=f"{registry}/clouds/nothing@sha256:{'0' * 64}")
    service.submit(request)
    assert ended(service, request.name).kind is EndKind.IMAGE


def test_capacity_that_is_not_there_has_its_own_kind(sagemaker: OnSageMaker, emulated: SageMaker) -> None:
    service, request = sagemaker.connect(), sagemaker.request("add", 1, 1)
    emulated.ends["add"] = ("Failed", "Failed", "CapacityError: Unable to provision requested ML compute capacity.")
    service.submit(request)
    assert ended(service, request.name).kind is EndKind.CAPACITY


def test_a_role_that_is_not_there_is_refused_and_no_job_is_made(sagemaker: OnSageMaker, emulated: SageMaker) -> None:
    before = emulated.created
    by_arn = sagemaker.having(role="arn:aws:iam::123456789012:role/nobody")
    with pytest.raises(JobRefusedError, match="role/nobody"):
        by_arn.connect().submit(by_arn.request("add", 1, 1))
    by_name = sagemaker.having(role="nobody")
    with pytest.raises(JobRefusedError, match="nobody"):
        by_name.connect().submit(by_name.request("add", 1, 1))
    assert emulated.created == before


def test_a_role_may_be_given_by_its_name(sagemaker: OnSageMaker) -> None:
    named = sagemaker.having(role="training")
    request = named.request("add", 40, 2)
    named.connect().submit(request)
    assert ended(named.connect(), request.name).state is JobState.SUCCEEDED
    assert named.value(request) == 42


def test_what_the_service_would_refuse_is_not_sent(sagemaker: OnSageMaker, aws: EmulatedAws) -> None:
    wrong = sagemaker.having(environment={"not-a-name": "x"})
    before = aws.count("CreateTrainingJob")
    with pytest.raises(JobRefusedError, match="not-a-name"):
        wrong.connect().submit(wrong.request("add", 1, 1))
    assert aws.count("CreateTrainingJob") == before


def test_of_several_machines_the_first_leaves_the_result_and_each_line_names_its_own(sagemaker: OnSageMaker) -> None:
    two = sagemaker.having(instance_count=2)
    request = two.request("machines")
    two.connect().submit(request)
    assert ended(two.connect(), request.name).state is JobState.SUCCEEDED
    assert two.value(request) == [0, 2, "algo-1", "2"]
    lines = all_lines(two.connect(), request.name)
    assert sorted(lines) == ["[algo-1] machine 0 of 2", "[algo-2] machine 1 of 2"]


def test_boto3_sees_the_job_as_it_was_launched(sagemaker: OnSageMaker, aws: EmulatedAws) -> None:
    service, request = sagemaker.connect(), sagemaker.request("add", 1, 1)
    service.submit(request)
    status = ended(service, request.name)
    described = aws.client("sagemaker").describe_training_job(TrainingJobName=request.name)
    assert described["TrainingJobStatus"] == "Completed"
    assert described["AlgorithmSpecification"]["TrainingImage"] == request.image
    assert status.metadata["billable_seconds"] == described["BillableTimeInSeconds"]
    console = f"https://{REGION}.console.aws.amazon.com"
    assert service.console_url(request.name) == f"{console}/sagemaker/home?region={REGION}#/jobs/{request.name}"
    assert service.logs_url(request.name) == (
        f"{console}/cloudwatch/home?region={REGION}#logsV2:log-groups/log-group/$252Faws$252Fsagemaker$252FTrainingJobs"
        f"$3FlogStreamNameFilter$3D{request.name}"
    )


@pytest.mark.parametrize(("code", "status"), [("ThrottlingException", 400), ("InternalFailure", 500)])
def test_a_throttled_or_broken_call_may_pass_and_harms_no_job(
    sagemaker: OnSageMaker, aws: EmulatedAws, code: str, status: int
) -> None:
    service, request = sagemaker.connect(), sagemaker.request("add", 1, 1)
    service.submit(request)
    failing = aws.fail("DescribeTrainingJob", code, status)
    with pytest.raises(TransientServiceError):
        service.describe(request.name)
    failing.times = 0
    assert ended(service, request.name).state is JobState.SUCCEEDED


@pytest.fixture(scope="session")
def faults(aws: EmulatedAws, at_home: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """What lies between us and AWS for the connection ``far_aws``."""
    with faulty_proxy(aws.url.removeprefix("http://")) as proxy:
        extra = {"region_name": REGION, "endpoint_url": f"http://{proxy.host}"}
        connection = {"conn_type": "aws", "login": ACCESS_KEY, "password": SECRET_KEY, "extra": extra}
        at_home.setenv("AIRFLOW_CONN_FAR_AWS", json.dumps(connection))
        yield proxy


@pytest.mark.parametrize("fault", ["reset", "lose_answer", "cut_answer", "status", "fail_after", "slow"])
@pytest.mark.parametrize("operation", ["DescribeTrainingJob", "CreateTrainingJob"])
def test_whatever_breaks_on_the_way_there_is_exactly_one_job(
    sagemaker: OnSageMaker, emulated: SageMaker, faults: FaultyProxy, operation: str, fault: str
) -> None:
    service, request = sagemaker.having(connection="far_aws").connect(), sagemaker.request("add", 1, 1)
    before = emulated.created
    planned = faults.add(fault, "POST", f"#{operation}$", times=2)
    status = patiently(service.submit)(request)
    assert planned.hit >= 1
    planned.times = 0
    assert emulated.created == before + 1
    assert status.id == request.name
    assert ended(sagemaker.connect(), request.name).state is JobState.SUCCEEDED


def test_a_log_that_could_not_be_read_is_read_from_where_it_was(sagemaker: OnSageMaker, faults: FaultyProxy) -> None:
    service, request = sagemaker.having(connection="far_aws").connect(), sagemaker.request("count", 100)
    service.submit(request)
    ended(service, request.name)
    first = service.logs(request.name, limit=40)
    planned = faults.add("reset", "POST", "#GetLogEvents$", times=100)
    with pytest.raises(TransientServiceError):
        service.logs(request.name, first.cursor)
    planned.times = 0
    rest = all_lines(service, request.name, first.cursor)
    assert [*first.lines, *rest] == all_lines(sagemaker.connect(), request.name)


def test_a_permission_that_is_missing_is_named(sagemaker: OnSageMaker, aws: EmulatedAws) -> None:
    failing = aws.fail(
        "CreateTrainingJob", "AccessDeniedException", 400, message="not authorized to perform: sagemaker"
    )
    with pytest.raises(JobRefusedError, match="CreateTrainingJob") as caught:
        sagemaker.connect().submit(sagemaker.request("add", 1, 1))
    failing.times = 0
    assert caught.value.kind is EndKind.PERMISSION


def test_an_answer_that_was_lost_finds_its_job(sagemaker: OnSageMaker, emulated: SageMaker) -> None:
    request = sagemaker.request("add", 1, 1)
    before = emulated.created
    threads = [threading.Thread(target=lambda: sagemaker.connect().submit(request)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert emulated.created == before + 1
    assert ended(sagemaker.connect(), request.name).state is JobState.SUCCEEDED


def test_no_key_is_in_what_a_job_is_given(sagemaker: OnSageMaker, emulated: SageMaker) -> None:
    service, request = sagemaker.connect(), sagemaker.request("add", 1, 1)
    service.submit(request)
    ended(service, request.name)
    said = json.dumps(emulated.jobs[request.name].request) + json.dumps(sagemaker.component.document())
    assert SECRET_KEY not in said
    assert ACCESS_KEY not in said
    assert SECRET_KEY.encode() not in sagemaker.store.get(request.spec_uri)


@pytest.mark.parametrize(
    ("step", "args", "ends_with"), [("add", (1, 1), "success"), ("leave", (7,), "failed"), ("wait", (), "stopped")]
)
def test_the_stock_trigger_of_airflow_sees_the_same_job(
    sagemaker: OnSageMaker, step: str, args: tuple[int, ...], ends_with: str
) -> None:
    from airflow.providers.amazon.aws.triggers.sagemaker import SageMakerTrigger

    service, request = sagemaker.connect(), sagemaker.request(step, *args)
    service.submit(request)
    trigger = SageMakerTrigger(request.name, "training", waiter_delay=1, aws_conn_id="jobs_aws")

    async def watched() -> Any:
        event = asyncio.create_task(anext(trigger.run()))
        if step == "wait":
            await asyncio.to_thread(running, service, request.name)
            service.cancel(request.name)
        return (await asyncio.wait_for(event, 60)).payload

    payload = asyncio.run(watched())
    assert (payload["status"], payload["job_name"]) == (ends_with, request.name)
