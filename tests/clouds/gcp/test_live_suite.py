"""The suite for real projects, run on the emulated Google Cloud: it works, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from tests.clouds.gcp.artifact_registry import ArtifactRegistry
from tests.clouds.gcp.emulated import JOB, EmulatedGcp
from tests.clouds.gcp.storage import StorageFront
from tests.clouds.gcp.vertex import REGION, Vertex
from tests.images.faults import FaultyProxy

CHECKOUT = Path(__file__).resolve().parents[3]
SUITE = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/live/gcp_smoke.py"]


def test_the_suite_passes_and_deletes_all_that_it_made(
    gcp: EmulatedGcp,
    storage: StorageFront,
    emulated: Vertex,
    pulled_from: FaultyProxy,
    artifact_registry: ArtifactRegistry,
    base_image: str,
) -> None:
    bucket = f"live-{uuid.uuid4().hex}"
    storage.make_bucket(bucket)
    places = {**gcp.overrides, "docker": f"http://{pulled_from.host}"}
    extra = {"keyfile_dict": gcp.key(), "api_endpoint_overrides": places}
    settings = {
        "LIVE_CONNECTION": json.dumps({"conn_type": "google_cloud_platform", "extra": extra}),
        "LIVE_REGION": REGION,
        "LIVE_BUCKET": bucket,
        "LIVE_SERVICE_ACCOUNT": JOB,
        "LIVE_BASE_IMAGE": base_image,
    }
    before = len(emulated.jobs)
    done = subprocess.run(
        SUITE, cwd=CHECKOUT, env={**os.environ, **settings}, capture_output=True, text=True, check=False, timeout=550
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
    assert len(emulated.jobs) == before + 4
    assert storage.keys(bucket) == []
    assert [name for name in artifact_registry.repositories if name.endswith("/stepops-live")] == []


def test_without_its_settings_the_suite_says_what_it_needs() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVE_")}
    done = subprocess.run(SUITE, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "LIVE_REGION is not set" in done.stdout
