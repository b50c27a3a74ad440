"""SageMaker's jobs in moto's server: requests are held to the service's own model, and images are really run.

moto itself ends every job at once. Here a job walks the true states; its image is pulled and run by Podman with
SageMaker's files, variables, entrypoint and signals, and what it prints goes to (moto's) CloudWatch Logs.
"""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import botocore.session
import moto.sagemaker.urls
import pytest
from moto.core.responses import ActionResult
from moto.iam.models import iam_backends
from moto.sagemaker.exceptions import ResourceInUseException, SagemakerClientError, ValidationError
from moto.sagemaker.responses import SageMakerResponse

from airflow_stepops.clouds.aws.limits import check_request
from airflow_stepops.errors import JobRefusedError
from tests.clouds.aws.emulated import ACCESS_KEY, REGION, SECRET_KEY, EmulatedAws
from tests.clouds.clock import Clock
from tests.engines import Podman

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/training"
ENDED = ("Completed", "Failed", "Stopped")
_CANNOT_PULL = (
    "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are incorrect."
)


@dataclass
class Job:
    """One job.

    :param request: as it was sent.
    """

    kind: str
    request: dict[str, Any]
    clock: Clock = field(default_factory=Clock)
    status: str = "InProgress"
    secondary: str = "Starting"
    reason: str = ""
    created_at: datetime = field(init=False)
    changed_at: datetime = field(init=False)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    transitions: list[dict[str, Any]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.created_at = self.changed_at = self.clock.now()

    @property
    def name(self) -> str:
        return str(self.request[f"{self.kind}JobName"])

    @property
    def arn(self) -> str:
        return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{self.kind.lower()}-job/{self.name}"

    def move(self, status: str, secondary: str, reason: str = "") -> None:
        self.status, self.secondary, self.reason = status, secondary, reason
        self.changed_at = self.clock.now()
        self.transitions.append(
            {"Status": secondary, "StartTime": self.changed_at, "StatusMessage": reason or secondary}
        )
        if status in ENDED:
            self.ended_at = self.changed_at

    def described(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            **{key: value for key, value in self.request.items() if key != "Tags"},
            f"{self.kind}JobArn": self.arn,
            f"{self.kind}JobStatus": self.status,
            "CreationTime": self.created_at,
            "LastModifiedTime": self.changed_at,
        }
        if self.reason and self.status == "Failed":
            facts["FailureReason"] = self.reason
        if self.started_at:
            facts[f"{self.kind}StartTime"] = self.started_at
        if self.ended_at:
            facts[f"{self.kind}EndTime"] = self.ended_at
        if self.kind == "Training":
            facts |= {"SecondaryStatus": self.secondary, "SecondaryStatusTransitions": self.transitions}
            if self.ended_at and self.started_at:
                seconds = max(1, int((self.ended_at - self.started_at).total_seconds()))
                facts |= {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
        return facts


class SageMaker:
    """All jobs of one account.

    :param podman: runs the images.
    :param aws: whose role's keys the containers get.
    """

    def __init__(self, podman: Podman, aws: EmulatedAws) -> None:
        self.podman = podman
        self.aws = aws
        self.jobs: dict[str, Job] = {}
        self.created = 0
        #: Names of jobs that nobody may describe or stop.
        self.denied: set[str] = set()
        #: Ends that the service itself brings about: task id → status, secondary status, reason of its next job.
        self.ends: dict[str, tuple[str, str, str]] = {}
        self._lock = threading.Lock()
        self._model = botocore.session.get_session().get_service_model("sagemaker")

    def responses(self) -> type[SageMakerResponse]:
        """Return the class that answers in the place of moto's own."""
        ours = self

        class Responses(SageMakerResponse):
            def create_training_job(self) -> ActionResult:
                return ours._create("Training", json.loads(self.body))

            def create_processing_job(self) -> ActionResult:
                return ours._create("Processing", json.loads(self.body))

            def describe_training_job(self) -> ActionResult:
                return ActionResult(ours._job("Training", json.loads(self.body)).described())

            def describe_processing_job(self) -> ActionResult:
                return ActionResult(ours._job("Processing", json.loads(self.body)).described())

            def stop_training_job(self) -> ActionResult:
                return ours._stop("Training", json.loads(self.body))

            def stop_processing_job(self) -> ActionResult:
                return ours._stop("Processing", json.loads(self.body))

            def list_training_jobs(self) -> ActionResult:
                return ours._list("Training", json.loads(self.body))

            def list_processing_jobs(self) -> ActionResult:
                return ours._list("Processing", json.loads(self.body))

        return Responses

    def _create(self, kind: str, request: dict[str, Any]) -> ActionResult:
        try:
            check_request(self._model.operation_model(f"Create{kind}Job"), request)
        except JobRefusedError as error:
            raise ValidationError(f"1 validation error detected: {error}") from error
        roles = iam_backends[ACCOUNT]["aws"].roles.values()
        if request["RoleArn"] not in [role.arn for role in roles]:
            raise ValidationError(f"Could not assume role {request['RoleArn']}. Please ensure that the role exists")
        job = Job(kind, request, self.aws.clock)
        with self._lock:
            if job.name in self.jobs:
                raise ResourceInUseException(
                    f"{kind} job names must be unique within an AWS account and region, and a {kind.lower()} job with "
                    f"this name already exists ({job.arn})"
                )
            self.jobs[job.name] = job
            self.created += 1
        threading.Thread(target=self._live, args=(job,), daemon=True).start()
        return ActionResult({f"{kind}JobArn": job.arn})

    def _job(self, kind: str, request: dict[str, Any]) -> Job:
        name = request[f"{kind}JobName"]
        if name in self.denied:
            raise SagemakerClientError("AccessDeniedException", f"User is not authorized to describe or stop {name}")
        job = self.jobs.get(name)
        if job is None or job.kind != kind:
            if kind == "Training":
                raise ValidationError("Requested resource not found.")
            raise ValidationError(f"Could not find requested job with name: {name}")
        return job

    def _stop(self, kind: str, request: dict[str, Any]) -> ActionResult:
        job = self._job(kind, request)
        if job.status in ENDED:
            raise ValidationError(f"The request was rejected because the {kind.lower()} job is in status {job.status}.")
        if not job.stop.is_set():
            job.move("Stopping", "Stopping")
            job.stop.set()
        return ActionResult({})

    def _list(self, kind: str, request: dict[str, Any]) -> ActionResult:
        after = request.get("LastModifiedTimeAfter", 0)
        found = [
            job.described()
            for job in list(self.jobs.values())
            if job.kind == kind and job.changed_at.timestamp() >= float(after)
        ]
        size = request.get("MaxResults", 10)
        start = int(request.get("NextToken", 0))
        fields = ("JobName", "JobArn", "JobStatus", "EndTime")
        names = [f"{kind}{field}" for field in fields] + ["CreationTime", "LastModifiedTime", "SecondaryStatus"]
        page = [{name: facts[name] for name in names if name in facts} for facts in found[start : start + size]]
        more = {"NextToken": str(start + size)} if len(found) > start + size else {}
        return ActionResult({f"{kind}JobSummaries": page, **more})

    def _live(self, job: Job) -> None:
        for secondary in ("Starting", "Pending", "Downloading"):
            job.move(job.status, secondary)
            time.sleep(0.05)
            if job.stop.is_set():
                job.move("Stopped", "Stopped")
                return
        tags = {tag["Key"]: tag["Value"] for tag in job.request["Tags"]}
        if tags.get("airflow_task_id") in self.ends:
            job.move(*self.ends.pop(tags["airflow_task_id"]))
            return
        specification = job.request.get("AlgorithmSpecification") or job.request["AppSpecification"]
        image = specification.get("TrainingImage") or specification["ImageUri"]
        try:
            login = f"AWS:{self.aws.new_login()}"
            self.podman.run("pull", "--quiet", "--tls-verify=false", "--creds", login, image)
        except AssertionError:
            job.move("Failed", "Failed", _CANNOT_PULL)
            return
        job.started_at = self.aws.clock.now()
        job.move("InProgress", "Training")
        with tempfile.TemporaryDirectory() as folder:
            self._run(job, image, specification["ContainerEntrypoint"], Path(folder))

    def _run(self, job: Job, image: str, entrypoint: list[str], folder: Path) -> None:
        resources = job.request.get("ResourceConfig") or job.request["ProcessingResources"]["ClusterConfig"]
        hosts = [f"algo-{number + 1}" for number in range(resources["InstanceCount"])]
        threading.Thread(target=self._end_in_time, args=(job, hosts), daemon=True).start()
        with ThreadPoolExecutor(len(hosts)) as machines:
            codes = list(machines.map(lambda host: self._run_on(job, host, hosts, image, entrypoint, folder), hosts))
        code = next((code for code in codes if code), 0)
        if job.stop.is_set():
            secondary = "MaxRuntimeExceeded" if job.secondary == "MaxRuntimeExceeded" else "Stopped"
            job.move("Stopped", secondary)
        elif code == 0:
            job.move("InProgress", "Uploading")
            job.move("Completed", "Completed")
        else:
            job.move("Failed", "Failed", f"AlgorithmError: , exit code: {code}")

    def _run_on(self, job: Job, host: str, hosts: list[str], image: str, entrypoint: list[str], folder: Path) -> int:
        told = {"current_host": host, "hosts": hosts, "network_interface_name": "eth0"}
        (folder / host / "input" / "config").mkdir(parents=True)
        (folder / host / "input" / "config" / "resourceconfig.json").write_text(json.dumps(told))
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        variables = {**keys, **job.request["Environment"], f"{job.kind.upper()}_JOB_NAME": job.name}
        given = [part for name, value in variables.items() for part in ("-e", f"{name}={value}")]
        command = ["podman", "run", "--name", f"{job.name}-{host}", "--network=host", "-v", f"{folder / host}:/opt/ml"]
        command += [*given, "--entrypoint", json.dumps(entrypoint), image]
        container = subprocess.Popen(
            command, env=self.podman.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert container.stdout is not None
        self._log(job, host, iter(container.stdout.readline, ""))
        return container.wait()

    def _end_in_time(self, job: Job, hosts: list[str]) -> None:
        seconds = job.request["StoppingCondition"]["MaxRuntimeInSeconds"]
        if not job.stop.wait(seconds) and job.status not in ENDED:
            job.secondary = "MaxRuntimeExceeded"
            job.stop.set()
        if job.status not in ENDED:
            self.podman.run("stop", "--time", "20", "--ignore", *(f"{job.name}-{host}" for host in hosts))

    def _log(self, job: Job, host: str, lines: Iterator[str]) -> None:
        waiting: queue.Queue[str | None] = queue.Queue()
        sender = threading.Thread(target=self._send, args=(job, host, waiting))
        sender.start()
        for line in lines:
            waiting.put(line.rstrip("\n"))
        waiting.put(None)
        sender.join()

    def _send(self, job: Job, host: str, waiting: queue.Queue[str | None]) -> None:
        """Send what is there, at most a thousand lines at a time."""
        logs, stream, group = (
            self.aws.client("logs"),
            f"{job.name}/{host}-{int(time.time())}",
            f"/aws/sagemaker/{job.kind}Jobs",
        )
        made = over = False
        while not over:
            batch = [waiting.get()]
            while len(batch) < 1000 and not waiting.empty():
                batch.append(waiting.get())
            over = batch[-1] is None
            events = [
                {"timestamp": int(time.time() * 1000), "message": line or " "} for line in batch if line is not None
            ]
            if events and not made:
                made = True
                with suppress(logs.exceptions.ResourceAlreadyExistsException):
                    logs.create_log_group(logGroupName=group)
                logs.create_log_stream(logGroupName=group, logStreamName=stream)
            if events:
                logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


@contextmanager
def emulated_sagemaker(aws: EmulatedAws, podman: Podman) -> Iterator[SageMaker]:
    """Let the emulated AWS have SageMaker, and the role of its jobs."""
    service = SageMaker(podman, aws)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(moto.sagemaker.urls.url_paths, "{0}/$", service.responses().dispatch)
        iam = aws.client("iam")
        with suppress(iam.exceptions.EntityAlreadyExistsException):  # all emulations of a process share moto's state
            iam.create_role(RoleName="training", AssumeRolePolicyDocument="{}")
        yield service
