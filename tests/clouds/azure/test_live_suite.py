"""The suite for real workspaces, run on the emulated Azure: it works, and leaves no values behind."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

from tests.clouds.azure.acr import Acr
from tests.clouds.azure.azureml import GROUP, WORKSPACE, AzureML
from tests.clouds.azure.emulated import ACCOUNT, EmulatedAzure

CHECKOUT = Path(__file__).resolve().parents[3]
SUITE = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/live/azure_smoke.py"]


def test_the_suite_passes_and_deletes_the_values_that_it_made(
    azure: EmulatedAzure,
    workspace: AzureML,
    registry_of_azure: tuple[Acr, str],
    airflow_settings: dict[str, str],
    base_image: str,
) -> None:
    container = f"live-{uuid.uuid4().hex}"
    azure.make_container(container)
    settings = {
        "LIVE_CONNECTION": azure.connection(),
        "LIVE_STORAGE_ACCOUNT": ACCOUNT,
        "LIVE_BLOB_ENDPOINT": azure.blob_url,
        "LIVE_CONTAINER": container,
        "LIVE_REGISTRY": registry_of_azure[1],
        "LIVE_RESOURCE_GROUP": GROUP,
        "LIVE_WORKSPACE": WORKSPACE,
        "LIVE_BASE_IMAGE": base_image,
    }
    before = len(workspace.jobs)
    done = subprocess.run(
        SUITE, cwd=CHECKOUT, env={**os.environ, **settings}, capture_output=True, text=True, check=False, timeout=550
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
    assert len(workspace.jobs) == before + 4
    assert list(workspace.compute.blobs.get_container_client(container).list_blob_names()) == []


def test_without_its_settings_the_suite_says_what_it_needs() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVE_")}
    done = subprocess.run(SUITE, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "LIVE_STORAGE_ACCOUNT is not set" in done.stdout
