"""A stack of Cloud Storage and Artifact Registry as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.gcp.artifact_registry import ArtifactRegistry
from tests.clouds.gcp.conftest import Connect
from tests.clouds.gcp.emulated import EmulatedGcp
from tests.clouds.gcp.storage import StorageFront
from tests.images.faults import FaultyProxy


def doctor() -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the checks by what was checked, and all that was printed."""
    command = [sys.executable, "-m", "airflow_stepops.cli", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, {check["what"]: check for check in json.loads(done.stdout)}, done.stdout + done.stderr


def test_doctor_finds_a_stack_well_or_says_what_it_lacks(
    gcp: EmulatedGcp,
    storage: StorageFront,
    artifact_registry: ArtifactRegistry,
    gar: FaultyProxy,
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"doctor-{uuid.uuid4().hex}"
    connection = connect(api_endpoint_overrides={**gcp.overrides, "docker": f"http://{gar.host}"})
    file = tmp_path / "stepops.yaml"
    file.write_text(f"""\
version: 1
active: cloud
artifact_stores:      {{values: {{flavor: gcs, bucket: {name}, connection: {connection}}}}}
container_registries: {{images: {{flavor: gar, location: us, repository: {name}, connection: {connection}}}}}
step_operators:       {{here: {{flavor: local}}}}
stacks:               {{cloud: {{artifact_store: values, container_registry: images, step_operators: [here]}}}}
""")
    monkeypatch.setenv("STEPOPS_CONFIG", str(file))
    code, checks, _ = doctor()
    assert code == 1
    assert "the bucket does not exist" in checks["artifact store values"]["said"]
    storage.make_bucket(name)
    for _ in range(2):
        code, checks, printed = doctor()
        assert code == 0, checks
        assert [checks[what]["passed"] for what in ("artifact store values", "container registry images")] == [True] * 2
    assert storage.keys(name) == []
    assert any(made.endswith(f"/{name}") for made in artifact_registry.repositories)
    assert not any(secret in printed for secret in (gcp.key()["private_key"], *gcp.tokens))
