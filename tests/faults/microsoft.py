"""Journeys to the emulated Azure, over TLS."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.clouds.azure.acr import Acr
from tests.clouds.azure.azureml import GROUP, WORKSPACE, AzureML
from tests.clouds.azure.compute import Compute
from tests.clouds.azure.emulated import ACCOUNT, CLIENT, EmulatedAzure, emulated_azure, running_azurite
from tests.clouds.gcp.emulated import serving
from tests.engines import Podman, running_registry
from tests.faults.journey import Line, LineProxy, Place, environment, is_no_engine, lay_out
from tests.faults.worker import DAG, LAG
from tests.images.faults import Tls, faulty_proxy
from tests.images.token_service import token_service

_STATES = {"Completed": "succeeded", "Failed": "failed", "Canceled": "stopped"}


def _is_airflow(azure: EmulatedAzure, headers: Mapping[str, str]) -> bool:
    authorization = headers.get("Authorization", "")
    if authorization:
        return azure.caller(authorization.removeprefix("Bearer ")) == CLIENT
    return "secret" not in headers  # with which jobs ask for the tokens of their machine


def _expired(headers: Mapping[str, str]) -> tuple[int, bytes] | None:
    said = "The access token expiry UTC time is earlier than current UTC time."
    if not headers.get("Authorization"):
        return None
    if "x-ms-version" in headers:
        return 401, f"<Error><Code>InvalidAuthenticationInfo</Code><Message>{said}</Message></Error>".encode()
    return 401, json.dumps({"error": {"code": "ExpiredAuthenticationToken", "message": said}}).encode()


@contextmanager
def microsoft(folder: Path, podman: Podman, registry: str, base_image: str) -> Iterator[Place]:
    """Make an emulated Azure, and prepare for journeys to it.

    :param folder: for the DAG and the stack file.
    :param registry: not used; images are in a registry of Azure's logins.
    """
    line = Line()
    of_airflow = partial(LineProxy, line=line, expired=_expired)
    with ExitStack() as running:
        azure = running.enter_context(emulated_azure(folder))
        tls = Tls(*azure.tls, azure.authority)
        azure.blob_url = running.enter_context(running_azurite(folder / "blobs", azure))
        container = f"journeys-{uuid.uuid4().hex}"
        azure.make_container(container)
        workspace, acr = AzureML(azure, Compute(podman, azure)), Acr(azure)
        workspace.lag = LAG
        acr.passwords["workspace"] = "of the workspace"
        workspace.compute.login = ("workspace", "of the workspace")

        calls = partial(of_airflow, is_airflow=partial(_is_airflow, azure))
        services = running.enter_context(faulty_proxy(azure.url.removeprefix("https://"), kind=calls, tls=tls))
        storage = azure.blob_url.removeprefix("https://").partition("/")[0]
        objects = running.enter_context(faulty_proxy(storage, kind=calls, tls=tls))
        azure.url, azure.blob_url = f"https://{services.host}", f"https://{objects.host}/{ACCOUNT}"

        of_images = partial(of_airflow, is_airflow=is_no_engine)
        tokens = running.enter_context(token_service(folder))
        tokens.user_of = acr.user_of  # type: ignore[method-assign]
        given = running.enter_context(faulty_proxy(tokens.host, kind=of_images))
        acr.registry = running.enter_context(running_registry(folder / "registry", auth=tokens.auth_at(given.host)))
        front = running.enter_context(serving(acr.answer)).removeprefix("http://")
        images = running.enter_context(faulty_proxy(front, kind=of_images))
        lay_out(
            folder,
            "line_to_azure",
            {"flavor": "azure-blob", "account_name": ACCOUNT, "container": container, "endpoint": azure.blob_url},
            {"flavor": "acr", "uri": f"{images.host}/j"},
            {
                "flavor": "azureml",
                "resource_group": GROUP,
                "workspace_name": WORKSPACE,
                "base_image": base_image,
            },
        )
        service = "airflow_stepops.clouds.azure.service:AzureMLJobService"
        trusted = {name: str(azure.authority) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")}
        yield Place(
            "azure",
            environment(folder, "line_to_azure", json.loads(azure.connection()), service) | trusted,
            line,
            partial(_jobs, workspace),
            create=r"^PUT .*/workspaces/[^/]+/jobs/",
        )


def _jobs(workspace: AzureML, run_id: str) -> dict[str, str]:
    found = {}
    for job in list(workspace.jobs.values()):
        tags = job.sent["tags"]
        if (tags["airflow_dag_id"], tags["airflow_run_id"]) == (DAG, run_id):
            found[job.name] = _STATES.get(job.status, "running")
    return found
