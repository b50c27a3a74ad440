"""What the tests of images share: a home of one's own, a project, and one call that builds its image."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_stepops.images.builder import BuiltImage, plan_image
from airflow_stepops.images.manifests import OCI
from airflow_stepops.images.registry.blobs import BytesBlob
from airflow_stepops.images.registry.client import RegistryClient
from airflow_stepops.images.registry.repository import ImageRepository
from airflow_stepops.options import Image
from airflow_stepops.stacks.components import ImageTarget
from tests.engines import BASE_PYTHON
from tests.images.faults import FaultyProxy, faulty_proxy

Build = Callable[..., BuiltImage]


def push_config(repository: ImageRepository, text: bytes = b"{}") -> str:
    """Push an image without layers, tagged ``tag``, and return its digest."""
    config = BytesBlob.of(text)
    repository.put_blob(config)
    described = {"mediaType": OCI.config, "digest": config.digest, "size": config.size}
    manifest = {"schemaVersion": 2, "mediaType": OCI.manifest, "config": described, "layers": []}
    return repository.put_manifest("tag", OCI.manifest, json.dumps(manifest).encode())


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose caches are warm after the first test."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of stepops in every test here."""
    monkeypatch.setenv("STEPOPS_HOME", str(shared_home))
    return shared_home


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with cold caches."""
    monkeypatch.setenv("STEPOPS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A code folder with one step."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "steps.py").write_text("ANSWER = 42\n")
    return root


@pytest.fixture
def repository(registry: str) -> RegistryClient:
    """An empty repository of the registry."""
    return RegistryClient(f"{registry}/tests/{uuid.uuid4().hex}")


@pytest.fixture
def proxy(registry: str) -> Iterator[FaultyProxy]:
    """The registry, behind a proxy that breaks what it is told to."""
    with faulty_proxy(registry) as running:
        yield running


@pytest.fixture
def build(project: Path) -> Build:
    """Build the project's image: ``build(repository, base, requirements=[…], builder=…)``."""

    def run(repository: ImageRepository, base: str | None, /, *, builder: object = None, **image: object) -> BuiltImage:
        if base is not None and not image.get("uri"):
            image.setdefault("python", BASE_PYTHON)
        return plan_image(
            Image(**image),  # type: ignore[arg-type]
            target=ImageTarget(base, None),
            code_root=project,
            dag_file=project / "dags" / "pipeline.py",
            repository=repository,
            builder=builder,  # type: ignore[arg-type]
            report=lambda _: None,
        ).ensure()

    (project / "dags").mkdir()
    return run
