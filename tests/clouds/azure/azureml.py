"""Azure ML: jobs in Azure Resource Manager and run history, over Microsoft's own models, whose images really run.

A job walks the true states, is pulled and run by Podman with Azure ML's shell, working folder, variables and signals;
what it prints goes to Blob Storage, to files that are read at signed addresses.
"""

from __future__ import annotations

import re
import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from azure.ai.ml._restclient.arm_ml_service import models
from azure.mgmt.machinelearningservices import models as older
from azure.storage.blob import BlobSasPermissions, generate_blob_sas
from werkzeug import Response

from tests.clouds.azure.compute import CONTAINER, Compute, Job, folder_of
from tests.clouds.azure.emulated import ACCOUNT, ACCOUNT_KEY, SUBSCRIPTION, EmulatedAzure
from tests.clouds.azure.models import RefusedError, check_document
from tests.clouds.gcp.emulated import Answer, Call, Reset

WORKSPACE = "team"
GROUP = "ml"
CLUSTER = "cpu-cluster"
RESOURCE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.MachineLearningServices"
    f"/workspaces/{WORKSPACE}"
)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}")
_PAGE = 25
_EXISTS = (
    "A job with this name already exists. If you are trying to create a new job, use a different name. If you are "
    "trying to update an existing job, the existing job's {} cannot be changed. Only description, tags, displayName, "
    "properties, and isArchived can be updated."
)


class UnknownError(Exception):
    """There is no such thing."""


class AzureML:
    """One workspace.

    :param compute: that runs the jobs.
    :ivar silent: names of jobs that are not heard of.
    :ivar lag: seconds by which the list of jobs is behind.
    :ivar lost: how many of the next answers to the creation of a job get lost on the way.
    :ivar signed: how long addresses of log files are good for.
    :ivar logs_at: URL that addresses of log files have in the place of Blob Storage's.
    :ivar together: what the next creations wait at, after their launchers have looked for a job.
    """

    def __init__(self, azure: EmulatedAzure, compute: Compute) -> None:
        self.azure = azure
        self.compute = compute
        self.jobs: dict[str, Job] = {}
        self.environments: dict[str, dict[str, Any]] = {}
        self.silent: set[str] = set()
        self.lag = 0.0
        self.lost = 0
        self.together: threading.Barrier | None = None
        self.signed = timedelta(hours=1)
        self.logs_at: str | None = None
        self.sent: list[Any] = []
        self._lock = threading.Lock()
        azure.apis |= {"arm": self.manage, "runs": self.history, "discovery": self.discovery}
        azure.open_to_all.add("discovery")

    # --- Azure Resource Manager

    def manage(self, call: Call) -> Answer:
        """Answer a call of Azure Resource Manager."""
        assert call.query.get("api-version"), "every call of Azure Resource Manager says a version"
        try:
            if not call.path.lower().startswith(RESOURCE.lower()):
                raise UnknownError(f"{call.path} is not there")
            return self._managed(call, call.path[len(RESOURCE) :].lstrip("/"))
        except RefusedError as refused:
            return error(400, "ValidationError", str(refused))
        except UnknownError as unknown:
            return error(404, "UserError", str(unknown))

    def _managed(self, call: Call, path: str) -> Answer:
        kind, _, rest = path.partition("/")
        if not kind:
            return 200, self._workspace()
        if kind == "environments":
            return self._environment(call, path)
        if kind == "mfeOperationResults":
            return Response("", 200 if self._job(rest).has_ended else 202, {"Retry-After": "1"})
        if kind != "jobs":
            raise UnknownError(f"{path} is not there")
        if not rest:
            return 200, self._list(call.query)
        name, _, action = rest.partition("/")
        if action == "cancel" and call.method == "POST":
            return self._cancel(self._job(name))
        return self._put(name, call.json) if call.method == "PUT" else (200, self._shown(self._job(name)))

    def _workspace(self) -> dict[str, Any]:
        return {
            "id": RESOURCE,
            "name": WORKSPACE,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": "westeurope",
            "properties": {"discoveryUrl": f"{self.azure.url}/discovery/", "workspaceId": str(uuid.UUID(int=7))},
        }

    def _environment(self, call: Call, path: str) -> Answer:
        if call.method == "PUT":
            check_document(call.json, models.EnvironmentVersion, older.EnvironmentVersion)
            there = self.environments.get(path)
            if there is not None and there["properties"]["image"] != call.json["properties"]["image"]:
                return error(409, "UserError", "A version of an environment cannot be changed.")
            self.environments[path] = {"id": f"{RESOURCE}/{path}", **call.json}
        if path not in self.environments:
            raise UnknownError(f"The environment {path} is not there")
        return 200, self.environments[path]

    def _put(self, name: str, document: Any) -> Answer:
        self.sent.append(document)
        if not _NAME.fullmatch(name):
            raise RefusedError(f"the name {name!r} is not valid")
        check_document(document, models.JobBase, older.JobBase)
        properties = document["properties"]
        environment = properties["environmentId"].removeprefix(f"{RESOURCE}/")
        if environment not in self.environments:
            raise RefusedError(f"environment {environment} is not there")
        if properties.get("computeId", CLUSTER).rpartition("/")[2] != CLUSTER:
            return error(404, "UserError", f"Requested compute {properties['computeId']} not found")
        if self.together is not None:
            self.together.wait(20)
        with self._lock:
            there = self.jobs.get(name)
            if there is not None and there.sent != properties:
                changed = [key for key, value in properties.items() if there.sent.get(key) != value]
                inner = {"code": "Immutable", "innerError": {"code": "JobPropertyImmutable"}}
                return error(400, "UserError", _EXISTS.format(", ".join(changed)), innerError=inner)
            if there is None:
                image = self.environments[environment]["properties"]["image"]
                job = self.jobs[name] = Job(name, properties, image, self.azure.clock)
                threading.Thread(target=self.compute.live, args=(job,), daemon=True).start()
            self.lost -= 1
            if self.lost >= 0:
                raise Reset
        return 200 if there else 201, self._shown(self.jobs[name])

    def _shown(self, job: Job, lag: float = 0.0) -> dict[str, Any]:
        studio = {"jobServiceType": "Studio", "endpoint": f"https://ml.azure.com/runs/{job.name}?wsid={RESOURCE}"}
        made = {"status": self._status(job, lag), "services": {"Studio": studio}, "outputs": {}, "isArchived": False}
        return {
            "id": f"{RESOURCE}/jobs/{job.name}",
            "name": job.name,
            "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "properties": {"properties": {}, **job.sent, **made},
            "systemData": {"createdAt": job.created.isoformat(), "createdBy": "worker", "createdByType": "Application"},
        }

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        jobs = [job for job in list(self.jobs.values()) if job.before(self.lag) is not None]
        jobs.sort(key=lambda job: job.created, reverse=True)
        tag = query.get("tag")
        found = [job for job in jobs if not tag or tag in job.sent.get("tags", {})]
        start = int(query.get("$skip", 0))
        answer: dict[str, Any] = {"value": [self._shown(job, self.lag) for job in found[start : start + _PAGE]]}
        if len(found) > start + _PAGE:
            given = "&".join(f"{key}={quote(value)}" for key, value in query.items() if key != "$skip")
            answer["nextLink"] = f"{self.azure.url}/arm{RESOURCE}/jobs?{given}&$skip={start + _PAGE}"
        return answer

    def _cancel(self, job: Job) -> Answer:
        if job.has_ended:
            return error(400, "UserError", f"The job is in terminal state {job.status}.")
        if not job.stop.is_set():
            job.stop.set()
            job.move("CancelRequested")
        place = f"{self.azure.url}/arm{RESOURCE}/mfeOperationResults/{job.name}?api-version=2025-12-01"
        return Response("", 202, {"Location": place, "Retry-After": "1"})

    def _job(self, name: str) -> Job:
        if name not in self.jobs:
            raise UnknownError(f"Job {name} not found.")
        return self.jobs[name]

    def _status(self, job: Job, lag: float = 0.0) -> str | None:
        return "NotResponding" if job.name in self.silent and not job.has_ended else job.before(lag)

    # --- what is found through the workspace

    def discovery(self, call: Call) -> Answer:
        """Say where run history is."""
        return 200, {"api": f"{self.azure.url}/runs"}

    def history(self, call: Call) -> Answer:
        """Answer a call of run history."""
        found = re.fullmatch(rf"/history/v1.0{re.escape(RESOURCE)}/runs/([^/]+)/details", call.path, re.IGNORECASE)
        try:
            if found is None:
                raise UnknownError(f"{call.path} is not there")
            return 200, self._details(self._job(found[1]))
        except UnknownError as unknown:
            return error(404, "UserError", str(unknown))

    def _details(self, job: Job) -> dict[str, Any]:
        details: dict[str, Any] = {
            "runId": job.name,
            "target": job.sent.get("computeId", "serverless").rpartition("/")[2],
            "status": self._status(job),
            "startTimeUtc": job.started.isoformat() if job.started else None,
            "endTimeUtc": job.ended.isoformat() if job.ended else None,
            "properties": {},
            "logFiles": {file: self._signed(f"{folder_of(job)}/{file}") for file in job.files},
        }
        if job.error is not None:
            details["error"] = {"error": job.error, "correlation": {"operation": uuid.uuid4().hex}, "location": "eu"}
        return details

    def _signed(self, blob: str) -> str:
        signature = generate_blob_sas(
            ACCOUNT,
            CONTAINER,
            blob,
            account_key=ACCOUNT_KEY,
            permission=BlobSasPermissions(read=True),
            expiry=datetime.now(UTC) + self.signed,
        )
        return f"{self.logs_at or self.azure.blob_url}/{CONTAINER}/{blob}?{signature}"


def error(status: int, code: str, message: str, **more: Any) -> Answer:
    """Return an answer that is an error as Azure ML words it."""
    return status, {"error": {"code": code, "message": message, **more}}
