"""Machines of Azure ML that really run jobs, with Podman."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from azure.storage.blob import BlobClient, BlobServiceClient
from pydantic import TypeAdapter

from tests.clouds.azure.emulated import ACCOUNT, ACCOUNT_KEY, EmulatedAzure
from tests.clouds.clock import Clock
from tests.engines import Podman

#: Of the workspace's storage, with what jobs print.
CONTAINER = "azureml"
ENDED = ("Completed", "Failed", "Canceled")

#: What containers trust, so that they reach the emulated Azure.
_AUTHORITY = "/etc/ssl/emulated-azure.pem"
_EXITED = (
    "Execution failed. User process 'python' exited with status code {}. Please check log file '{}' for error details. "
    "Error: {}"
)


@dataclass
class Job:
    """One job and its run.

    :param sent: what was sent of it.
    :param image: that it runs.
    :param files: of its log, so far.
    """

    name: str
    sent: dict[str, Any]
    image: str
    clock: Clock = field(default_factory=Clock)
    status: str = "NotStarted"
    stop: threading.Event = field(default_factory=threading.Event)
    files: list[str] = field(default_factory=list)
    tail: str = ""
    created: datetime = field(init=False)
    started: datetime | None = None
    ended: datetime | None = None
    error: dict[str, Any] | None = None
    history: list[tuple[float, str]] = field(default_factory=lambda: [(time.monotonic(), "NotStarted")])

    def __post_init__(self) -> None:
        self.created = self.clock.now()

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    def move(self, status: str, error: dict[str, Any] | None = None) -> None:
        now = self.clock.now()
        if status == "Running" and self.started is None:
            self.started = now
        if status in ENDED:
            self.error = error
            self.ended = now
        is_asked_to_end = self.stop.is_set() and status not in ENDED
        self.status = "CancelRequested" if is_asked_to_end else status
        self.history.append((time.monotonic(), self.status))

    def before(self, seconds: float) -> str | None:
        """Return the status of so many seconds ago, ``None`` where the job was not made yet."""
        if not seconds:
            return self.status
        moment = time.monotonic() - seconds
        return next((status for at, status in reversed(self.history) if at <= moment), None)


class Compute:
    """What runs jobs.

    :param azure: whose Blob Storage keeps logs, and whose identity jobs have.
    :ivar login: name and password with which images are pulled, of who else pulls from the workspace's registry.
    :ivar ends: task id → status and error that the service brings about in the place of running it.
    """

    def __init__(self, podman: Podman, azure: EmulatedAzure) -> None:
        self.podman = podman
        self.azure = azure
        key = {"account_name": ACCOUNT, "account_key": ACCOUNT_KEY}
        self.blobs = BlobServiceClient(azure.blob_url, credential=key, connection_verify=str(azure.authority))
        self.blobs.create_container(CONTAINER)
        self.login: tuple[str, str] | None = None
        self.ends: dict[str, tuple[str, dict[str, Any] | None]] = {}

    def live(self, job: Job) -> None:
        """Lead a job through its life."""
        for status in ("Queued", "Provisioning", "Preparing"):
            if job.stop.is_set():
                job.move("Canceled")
                return
            job.move(status)
            time.sleep(0.05)
        planned = self.ends.pop(job.sent.get("tags", {}).get("airflow_task_id", ""), None)
        if planned is not None:
            job.move(*planned)
            return
        try:
            login = ["--creds", ":".join(self.login)] if self.login else []
            self.podman.run("pull", "--quiet", "--tls-verify=false", *login, job.image)
        except AssertionError:
            message = f"Failed to pull Docker image {job.image}: manifest unknown"
            job.move("Failed", {"code": "UserError", "message": message})
            return
        job.move("Starting")
        self._run(job)

    def _run(self, job: Job) -> None:
        count = job.sent.get("resources", {}).get("instanceCount", 1)
        names = ["std_log.txt"] if count == 1 else [f"std_log_process_{number}.txt" for number in range(count)]
        files = [f"user_logs/{name}" for name in names]
        for file in files:
            self._log_of(job, file).create_append_blob()
        job.files = ["system_logs/lifecycler/lifecycler.log", *files]
        job.move("Running")
        threading.Thread(target=self._end_in_time, args=(job, count), daemon=True).start()
        with ThreadPoolExecutor(count) as threads:
            codes = list(threads.map(lambda number: self._run_on(job, number, files), range(count)))
        failed = next(((file, code) for file, code in zip(files, codes, strict=True) if code), None)
        if job.stop.is_set():
            job.move("Canceled")
            return
        job.move("Finalizing")
        if failed is None:
            job.move("Completed")
            return
        file, code = failed
        said = {"code": "UserError", "message": _EXITED.format(code, file, job.tail), "details": []}
        job.move("Failed", {**said, "innerError": {"code": "BadArgument", "innerError": {"code": "UserError"}}})

    def _run_on(self, job: Job, number: int, files: list[str]) -> int:
        given = [
            part
            for name, value in self._variables(job, number, len(files)).items()
            for part in ("-e", f"{name}={value}")
        ]
        with tempfile.TemporaryDirectory() as folder:
            place = f"/mnt/azureml/cr/j/{uuid.uuid4().hex}/exe/wd"
            command = ["podman", "run", "--name", f"azureml-{job.name}-{number}", "--network=host", *given]
            command += ["-v", f"{self.azure.authority}:{_AUTHORITY}:ro", "-v", f"{folder}:{place}", "-w", place]
            command += ["--entrypoint", json.dumps(["/bin/bash", "-c"])]
            command += [job.image, job.sent["command"]]
            container = subprocess.Popen(
                command, env=self.podman.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
            )
            log = self._log_of(job, files[number])
            assert container.stdout is not None
            while data := container.stdout.read(1 << 14):
                log.append_block(data)
                job.tail = data.decode(errors="replace")[-200:]
            return container.wait()

    def _variables(self, job: Job, number: int, count: int) -> dict[str, str]:
        variables = {
            "AZUREML_RUN_ID": job.name,
            "AZUREML_EXPERIMENT_NAME": job.sent["experimentName"],
            "SSL_CERT_FILE": _AUTHORITY,
            "AZUREML_RUN_TOKEN": "of this run",
            "AZUREML_NODE_COUNT": str(count),
            "AZ_BATCH_HOST_LIST": ",".join(f"127.0.0.{4 + index}" for index in range(count)),
        }
        if job.sent["identity"]["identityType"] == "Managed":
            variables |= self.azure.identity
            if "clientId" in job.sent["identity"]:
                variables["DEFAULT_IDENTITY_CLIENT_ID"] = job.sent["identity"]["clientId"]
        if job.sent.get("distribution", {}).get("distributionType") == "PyTorch":
            told = {"RANK": number, "NODE_RANK": number, "LOCAL_RANK": 0, "WORLD_SIZE": count, "MASTER_PORT": 6105}
            variables |= {"MASTER_ADDR": "127.0.0.4", **{name: str(value) for name, value in told.items()}}
        return {**variables, **job.sent.get("environmentVariables", {})}

    def _end_in_time(self, job: Job, count: int) -> None:
        timeout = job.sent.get("limits", {}).get("timeout", "P7D")
        if not job.stop.wait(TypeAdapter(timedelta).validate_python(timeout).total_seconds()) and not job.has_ended:
            job.stop.set()
        while not job.has_ended:
            names = [f"azureml-{job.name}-{number}" for number in range(count)]
            self.podman.run("stop", "--time", "20", "--ignore", *names)
            time.sleep(0.2)

    def _log_of(self, job: Job, file: str) -> BlobClient:
        return self.blobs.get_blob_client(CONTAINER, f"{folder_of(job)}/{file}")


def folder_of(job: Job) -> str:
    """Return where the files of a run are."""
    return f"ExperimentRun/dcid.{job.name}"
