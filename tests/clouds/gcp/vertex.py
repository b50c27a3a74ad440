"""Vertex AI's custom jobs: REST and gRPC over Google's own classes, the documented limits, and images that really run.

A job gets a number, walks the true states, is pulled and run by Podman with Vertex's variables, entrypoint and signals,
as its service account; what it prints goes to the emulated Cloud Logging.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc
from google.cloud.aiplatform_v1 import types
from google.protobuf import empty_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from tests.clouds.clock import Clock
from tests.clouds.gcp.cloud_logging import CloudLogging
from tests.clouds.gcp.emulated import JOB, PROJECT, Answer, Call, EmulatedGcp, Reset, error
from tests.engines import Podman, free_port

REGION = "europe-west4"
NUMBER = "123456789012"
#: Who pulls the images.
AGENT = f"service-{NUMBER}@gcp-sa-aiplatform.iam.gserviceaccount.com"
State = types.JobState
ENDED = (State.JOB_STATE_SUCCEEDED, State.JOB_STATE_FAILED, State.JOB_STATE_CANCELLED)

_PARENTS = [f"projects/{project}/locations/{REGION}" for project in (PROJECT, NUMBER)]
_CLAUSE = re.compile(r'(state|display_name|create_time|labels\.[\w-]+)(=|!=|>=|<=|>|<|:)(?:"([^"]*)"|(\*))')
_LABEL = re.compile(r"[\w-]{0,63}")
_VARIABLE = re.compile(r"\$\$|\$\((\w+)\)")
_STATUS = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404, "PERMISSION_DENIED": 403}


class RefusedError(Exception):
    """Vertex refuses a call."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Job:
    """One job.

    :param shown: as people see it.
    """

    shown: types.CustomJob
    clock: Clock = field(default_factory=Clock)
    stop: threading.Event = field(default_factory=threading.Event)
    tail: str = ""
    history: list[tuple[float, types.CustomJob]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.shown.name.rpartition("/")[2])

    @property
    def ended(self) -> bool:
        return self.shown.state in ENDED

    def move(self, state: State, code: int = 0, message: str = "") -> None:
        now = self.clock.now()
        if state == State.JOB_STATE_RUNNING and not self.shown.start_time:
            self.shown.start_time = now
        if state in ENDED:
            self.shown.end_time = now
        if code:
            self.shown.error = {"code": code, "message": message}
        self.shown.update_time = now
        self.shown.state = state
        self.history.append((time.monotonic(), _copy(self.shown)))

    def before(self, seconds: float) -> types.CustomJob | None:
        """Return the job as people saw it so many seconds ago, ``None`` where it was not made yet."""
        if not seconds:
            return self.shown
        moment = time.monotonic() - seconds
        return next((shown for at, shown in reversed(self.history) if at <= moment), None)


class Vertex:
    """The custom jobs of one project and region.

    :param metadata: address of what gives containers the tokens of their service account.
    :ivar ends: task id → state, error code and message that the service brings about in the place of running it.
    :ivar lag: seconds by which lists are behind.
    :ivar lost: how many of the next answers to create get lost on the way.
    :ivar together: what the next creates wait at, after their launchers have looked for a job.
    """

    def __init__(self, gcp: EmulatedGcp, podman: Podman, logging: CloudLogging, metadata: str) -> None:
        self.gcp = gcp
        self.podman = podman
        self.logging = logging
        self.metadata = metadata
        self.jobs: dict[str, Job] = {}
        self.ends: dict[str, tuple[State, int, str]] = {}
        self.lag = 0.0
        self.lost = 0
        self.together: threading.Barrier | None = None
        self.sent: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    # --- REST

    def __call__(self, call: Call) -> Answer:
        """Answer a call."""
        found = re.fullmatch(r"/v1/(projects/[^/]+/locations/[^/]+)/customJobs(?:/([^:]+))?(:cancel)?", call.path)
        try:
            if found is None or found[1] not in _PARENTS:
                raise RefusedError("NOT_FOUND", f"{call.path} is not found")
            if found[3]:
                self.cancel(self._job(found[2]))
                return 200, {}
            if found[2]:
                return 200, MessageToDict(self._job(found[2]).shown._pb)
            if call.method == "POST":
                return 200, MessageToDict(self._created(call.json)._pb)
            return 200, MessageToDict(self._list(_list_request(found[1], call.query))._pb)
        except RefusedError as refused:
            return error(_STATUS[refused.code], refused.code, str(refused))

    def _created(self, document: Any) -> types.CustomJob:
        self.sent.append(document)
        try:
            job = types.CustomJob()
            ParseDict(document, job._pb)
        except ParseError as wrong:
            raise RefusedError("INVALID_ARGUMENT", f"Invalid JSON payload received. {wrong}") from wrong
        if self.together is not None:
            self.together.wait(20)
        made = self.create(job)
        with self._lock:
            self.lost -= 1
            if self.lost >= 0:
                raise Reset
        return made

    # --- gRPC

    @contextmanager
    def over_grpc(self) -> Iterator[str]:
        """Serve Google's JobService for the time of the block, and give its address."""

        def answering(answer: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
            def call(request: Any, context: grpc.ServicerContext) -> Any:
                try:
                    return answer(request)
                except RefusedError as refused:
                    context.abort(grpc.StatusCode[refused.code], str(refused))

            return call

        def cancel(request: types.CancelCustomJobRequest) -> empty_pb2.Empty:
            self.cancel(self._job(request.name.rpartition("/")[2]))
            return empty_pb2.Empty()

        methods = {
            "CreateCustomJob": (types.CreateCustomJobRequest, lambda asked: self.create(asked.custom_job)),
            "GetCustomJob": (types.GetCustomJobRequest, lambda asked: self._job(asked.name.rpartition("/")[2]).shown),
            "ListCustomJobs": (types.ListCustomJobsRequest, self._list),
            "CancelCustomJob": (types.CancelCustomJobRequest, cancel),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(answering(answer), kind.deserialize, _serialized)
            for name, (kind, answer) in methods.items()
        }
        server = grpc.server(ThreadPoolExecutor(2))
        service = grpc.method_handlers_generic_handler("google.cloud.aiplatform.v1.JobService", handlers)
        server.add_generic_rpc_handlers((service,))
        address = f"127.0.0.1:{free_port()}"
        server.add_insecure_port(address)
        server.start()
        try:
            yield address
        finally:
            server.stop(1).wait()

    # --- what both do

    def create(self, job: types.CustomJob) -> types.CustomJob:
        """Make a job, with a number of its own each time."""
        _check(job)
        with self._lock:
            number = str(random.randint(10**17, 9 * 10**18))
            job.name = f"projects/{NUMBER}/locations/{REGION}/customJobs/{number}"
            job.create_time = self.gcp.clock.now()
            made = self.jobs[number] = Job(job, self.gcp.clock)
            made.move(State.JOB_STATE_QUEUED)
            answer = _copy(job)
        threading.Thread(target=self._live, args=(made,), daemon=True).start()
        return answer

    def cancel(self, job: Job) -> None:
        """Ask a job to stop."""
        if job.ended:
            raise RefusedError("FAILED_PRECONDITION", f"The job is in state {job.shown.state.name}.")
        if not job.stop.is_set():
            job.move(State.JOB_STATE_CANCELLING)
            job.stop.set()

    def labelled(self, name: str) -> list[Job]:
        """Return the jobs of an attempt."""
        return [job for job in self.jobs.values() if job.shown.labels.get("stepops_job") == name]

    def _job(self, number: str) -> Job:
        if not number.isdigit():
            raise RefusedError("INVALID_ARGUMENT", f"Invalid resource id {number}")
        if number not in self.jobs:
            raise RefusedError("NOT_FOUND", f"The CustomJob {number} is not found.")
        return self.jobs[number]

    def _list(self, asked: types.ListCustomJobsRequest) -> types.ListCustomJobsResponse:
        clauses = [_CLAUSE.fullmatch(clause) for clause in asked.filter.split(" AND ")] if asked.filter else []
        if None in clauses:
            raise RefusedError("INVALID_ARGUMENT", f"List filter is not valid: {asked.filter}")
        jobs = [shown for job in list(self.jobs.values()) if (shown := job.before(self.lag)) is not None]
        jobs.sort(key=lambda job: job.create_time, reverse=True)
        found = [job for job in jobs if all(_holds(job, *clause.groups()) for clause in clauses if clause)]
        start, size = int(asked.page_token or 0), min(asked.page_size or 100, 100)
        page = [_masked(job, asked.read_mask) for job in found[start : start + size]]
        more = str(start + size) if len(found) > start + size else ""
        return types.ListCustomJobsResponse(custom_jobs=page, next_page_token=more)

    # --- the life of a job

    def _live(self, job: Job) -> None:
        for state in (State.JOB_STATE_QUEUED, State.JOB_STATE_PENDING):
            job.move(state)
            time.sleep(0.05)
            if job.stop.is_set():
                job.move(State.JOB_STATE_CANCELLED, 1, "CANCELED")
                return
        planned = self.ends.pop(job.shown.labels.get("airflow_task_id", ""), None)
        if planned is not None:
            job.move(*planned)
            return
        image = job.shown.job_spec.worker_pool_specs[0].container_spec.image_uri
        self.logging.write(job.id, "service", "Waiting for job to be provisioned.")
        try:
            token = self.gcp.new_token(AGENT, "agent")["access_token"]
            login = f"oauth2accesstoken:{token}"
            self.podman.run("pull", "--quiet", "--tls-verify=false", "--creds", login, image)
        except AssertionError:
            job.move(State.JOB_STATE_FAILED, 5, f"The image {image} does not exist, or it cannot be pulled.")
            return
        job.move(State.JOB_STATE_CANCELLING if job.stop.is_set() else State.JOB_STATE_RUNNING)
        self._run(job)

    def _run(self, job: Job) -> None:
        pools = list(job.shown.job_spec.worker_pool_specs)
        cluster = {
            f"workerpool{number}": [
                f"training-workerpool{number}-ab-{index}:2222" for index in range(pool.replica_count)
            ]
            for number, pool in enumerate(pools)
        }
        machines = [(number, index) for number, pool in enumerate(pools) for index in range(pool.replica_count)]
        names = [f"workerpool{number}-{index}" for number, index in machines]
        threading.Thread(target=self._end_in_time, args=(job, names), daemon=True).start()
        with ThreadPoolExecutor(len(machines)) as threads:
            codes = list(threads.map(lambda machine: self._run_on(job, *machine, cluster), machines))
        failed = next(((name, code) for name, code in zip(names, codes, strict=True) if code), None)
        if job.stop.is_set():
            job.move(State.JOB_STATE_CANCELLED, 1, "CANCELED")
        elif failed is None:
            self.logging.write(job.id, "service", "Job completed successfully.")
            job.move(State.JOB_STATE_SUCCEEDED)
        else:
            said = f"The replica {failed[0]} exited with a non-zero status of {failed[1]}. Termination reason: Error. "
            job.move(State.JOB_STATE_FAILED, 3, f"{said}\n{job.tail}")

    def _run_on(self, job: Job, pool: int, index: int, cluster: dict[str, list[str]]) -> int:
        spec = job.shown.job_spec.worker_pool_specs[pool].container_spec
        machine = f"workerpool{pool}-{index}"
        task = {"type": f"workerpool{pool}", "index": index, "trial": ""}
        variables = {
            "CLOUD_ML_JOB_ID": job.id,
            "CLOUD_ML_PROJECT_ID": NUMBER,
            "CLUSTER_SPEC": json.dumps({"cluster": cluster, "environment": "cloud", "task": task, "job": "{}"}),
        }
        output = job.shown.job_spec.base_output_directory.output_uri_prefix
        if output:
            folders = {"MODEL_DIR": "model", "CHECKPOINT_DIR": "checkpoints", "TENSORBOARD_LOG_DIR": "logs"}
            variables |= {f"AIP_{name}": f"{output}/{folder}/" for name, folder in folders.items()}
        for variable in spec.env:
            variables[variable.name] = _VARIABLE.sub(
                lambda found: "$" if found[1] is None else variables.get(found[1], found[0]), variable.value
            )
        given = [part for name, value in variables.items() for part in ("-e", f"{name}={value}")]
        command = ["podman", "run", "--name", f"vertex-{job.id}-{machine}", "--network=host"]
        command += ["--add-host", f"metadata.google.internal:{self.metadata}", *given]
        command += ["--entrypoint", json.dumps(list(spec.command)), spec.image_uri, *spec.args]
        container = subprocess.Popen(
            command, env=self.podman.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert container.stdout is not None
        for line in container.stdout:
            self.logging.write(job.id, machine, line.rstrip("\n"))
            job.tail = line
        return container.wait()

    def _end_in_time(self, job: Job, machines: list[str]) -> None:
        if not job.stop.wait(job.shown.job_spec.scheduling.timeout.total_seconds() or 7 * 86400) and not job.ended:
            job.stop.set()
        while not job.ended:
            self.podman.run("stop", "--time", "20", "--ignore", *(f"vertex-{job.id}-{name}" for name in machines))
            time.sleep(0.2)


def _check(job: types.CustomJob) -> None:
    """Refuse what the API's documentation says it refuses."""
    problems = []
    if not job.display_name or len(job.display_name) > 128:
        problems.append("display_name is required, and has 128 characters at most")
    for key, value in job.labels.items():
        if not (_LABEL.fullmatch(key) and _LABEL.fullmatch(value)) or (key + value).lower() != key + value:
            problems.append(f"label {key}={value}")
    pools = job.job_spec.worker_pool_specs
    if not pools or pools[0].replica_count != 1:
        problems.append("the first worker pool has one replica")
    for pool in pools:
        spec = pool.container_spec
        if not spec.image_uri or not pool.machine_spec.machine_type:
            problems.append("image_uri and machine_type are required")
        if len(spec.env) > 100 or not all(re.fullmatch(r"[A-Za-z_]\w*", variable.name) for variable in spec.env):
            problems.append("env has at most 100 variables, and their names are C identifiers")
        if bool(pool.machine_spec.accelerator_type) != bool(pool.machine_spec.accelerator_count):
            problems.append("accelerator_type and accelerator_count go together")
    if problems:
        raise RefusedError("INVALID_ARGUMENT", "; ".join(problems))
    account = job.job_spec.service_account
    if account not in ("", JOB):
        raise RefusedError(
            "PERMISSION_DENIED", f"You do not have permission to act as service account: {account} (or it is not there)"
        )


def _list_request(parent: str, query: dict[str, str]) -> types.ListCustomJobsRequest:
    mask = FieldMask()
    if "readMask" in query:
        mask.FromJsonString(query["readMask"])
    return types.ListCustomJobsRequest(
        parent=parent,
        filter=query.get("filter", ""),
        page_size=int(query.get("pageSize", 0)),
        page_token=query.get("pageToken", ""),
        read_mask=mask,
    )


def _copy(job: types.CustomJob) -> types.CustomJob:
    copied: types.CustomJob = types.CustomJob.deserialize(types.CustomJob.serialize(job))
    return copied


def _masked(job: types.CustomJob, mask: FieldMask) -> types.CustomJob:
    if not mask.paths:
        return job
    found = types.CustomJob()
    mask.MergeMessage(job._pb, found._pb)
    return found


def _holds(job: types.CustomJob, name: str, operator: str, value: str | None, star: str | None) -> bool:
    if name.startswith("labels."):
        found = job.labels.get(name.partition(".")[2])
        return found is not None if star else found == value
    if name == "create_time":
        there, then = job.create_time.timestamp(), datetime.fromisoformat(str(value)).timestamp()
        return {">=": there >= then, "<=": there <= then, ">": there > then, "<": there < then}[operator]
    is_it = {"state": job.state.name, "display_name": job.display_name}[name] == value
    return is_it if operator == "=" else not is_it


def _serialized(message: Any) -> bytes:
    found: bytes = (
        message.SerializeToString() if isinstance(message, empty_pb2.Empty) else type(message).serialize(message)
    )
    return found
