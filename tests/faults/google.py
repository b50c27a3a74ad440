"""Journeys to the emulated Google Cloud."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from airflow_stepops.jobs.attempt import job_name
from airflow_stepops.runtime.spec import Attempt
from tests.clouds.gcp.artifact_registry import ArtifactRegistry, GarFront, registry_user
from tests.clouds.gcp.cloud_logging import CloudLogging
from tests.clouds.gcp.emulated import JOB, PROJECT, WORKER, EmulatedGcp, emulated_gcp, metadata_server
from tests.clouds.gcp.storage import emulated_storage
from tests.clouds.gcp.vertex import REGION, Vertex
from tests.engines import Podman, running_registry
from tests.faults.journey import Line, LineProxy, Place, environment, is_no_engine, lay_out
from tests.faults.worker import DAG, LAG, TASK, DagRun
from tests.images.faults import faulty_proxy
from tests.images.token_service import token_service

_STATES = {"JOB_STATE_SUCCEEDED": "succeeded", "JOB_STATE_FAILED": "failed", "JOB_STATE_CANCELLED": "stopped"}


def _is_airflow(gcp: EmulatedGcp, headers: Mapping[str, str]) -> bool:
    authorization = headers.get("Authorization", "")
    # Jobs ask a metadata server for tokens, and Airflow the token endpoint, without a token yet.
    return not authorization or gcp.caller(authorization) == WORKER


def _expired(headers: Mapping[str, str]) -> tuple[int, bytes] | None:
    if not headers.get("Authorization"):
        return None
    said = "Request had invalid authentication credentials. Expected OAuth 2 access token."
    return 401, json.dumps({"error": {"code": 401, "message": said, "status": "UNAUTHENTICATED"}}).encode()


@contextmanager
def google(folder: Path, podman: Podman, registry: str, base_image: str) -> Iterator[Place]:
    """Make an emulated Google Cloud, and prepare for journeys to it.

    :param folder: for the DAG and the stack file.
    :param registry: not used; images are in a registry of Google's logins.
    """
    line = Line()
    with ExitStack() as running:
        gcp = running.enter_context(emulated_gcp())
        (folder / "storage").mkdir()
        storage = running.enter_context(emulated_storage(gcp, folder / "storage"))
        vertex = Vertex(gcp, podman, CloudLogging(), running.enter_context(metadata_server(gcp)))
        vertex.lag = LAG
        repositories = ArtifactRegistry()
        gcp.apis |= {"aiplatform": vertex, "logging": vertex.logging, "artifactregistry": repositories}
        tokens = running.enter_context(token_service(folder))
        tokens.user_of = partial(registry_user, gcp)  # type: ignore[method-assign]
        of_images = partial(LineProxy, line=line, is_airflow=is_no_engine, expired=_expired)
        given = running.enter_context(faulty_proxy(tokens.host, kind=of_images))
        blobs = running.enter_context(running_registry(folder / "registry", auth=tokens.auth_at(given.host)))
        kind = partial(LineProxy, line=line, is_airflow=partial(_is_airflow, gcp), expired=_expired)
        services = running.enter_context(faulty_proxy(gcp.url.removeprefix("http://"), kind=kind))
        objects = running.enter_context(faulty_proxy(gcp.storage_url.removeprefix("http://"), kind=kind))
        images = running.enter_context(faulty_proxy(blobs, GarFront(repositories), of_images))
        bucket = f"journeys-{uuid.uuid4().hex}"
        storage.make_bucket(bucket)
        lay_out(
            folder,
            "line_to_gcp",
            {"flavor": "gcs", "bucket": bucket},
            {"flavor": "gar", "location": REGION, "repository": "steps"},
            {
                "flavor": "vertex",
                "region": REGION,
                "service_account": JOB,
                "base_image": base_image,
            },
        )
        places = {name: url.replace(gcp.url, f"http://{services.host}") for name, url in gcp.overrides.items()}
        places |= {"storage": f"http://{objects.host}", "docker": f"http://{images.host}"}
        key = {**gcp.key(), "token_uri": f"http://{services.host}/token"}
        extra = {"project": PROJECT, "keyfile_dict": key, "api_endpoint_overrides": places}
        connection = {"conn_type": "google_cloud_platform", "extra": extra}
        service = "airflow_stepops.clouds.gcp.service:VertexJobService"
        yield Place(
            "gcp",
            environment(folder, "line_to_gcp", connection, service),
            line,
            partial(_jobs, vertex, f"gs://{bucket}"),
            create="^POST .*/customJobs$",
        )


def _jobs(vertex: Vertex, root: str, run_id: str) -> dict[str, str]:
    instance = f"{DagRun().start_date:%Y%m%dT%H%M%S.%f}"
    tries = [Attempt(DAG, run_id, TASK, -1, number, instance, f"{run_id}-{number}") for number in range(1, 10)]
    names = [job_name(root, attempt) for attempt in tries]
    jobs = [job for name in names for job in vertex.labelled(name)]
    return {job.id: _STATES.get(job.shown.state.name, "running") for job in jobs}
