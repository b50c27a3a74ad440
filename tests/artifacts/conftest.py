"""Artifact stores of both kinds: a folder, and a bucket of an S3 server in this process, found by the environment."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from airflow_stepops.artifacts.store import ArtifactStore

BUCKET = "artifacts"


def s3_application() -> Callable[..., Iterable[bytes]]:
    """Return moto's S3, which decides one request at a time: on its own, its conditional writes are not atomic."""
    application = DomainDispatcherApplication(create_backend_app)
    deciding = threading.Lock()

    def decide(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with deciding:
            return application(environ, start_response)

    return decide


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of an S3 server with the bucket ``BUCKET``."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, s3_application(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    with urlopen(Request(f"{url}/{BUCKET}", method="PUT")):
        pass
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def s3_root(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Root URI of an empty artifact store in S3; the environment says how to get there."""
    variables = {
        "AWS_ENDPOINT": s3_server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def folder_store(tmp_path: Path) -> ArtifactStore:
    """An empty artifact store in a folder."""
    return ArtifactStore((tmp_path / "store").as_uri())


@pytest.fixture
def s3_store(s3_root: str) -> ArtifactStore:
    """An empty artifact store in S3."""
    return ArtifactStore(s3_root)


@pytest.fixture(params=["folder_store", "s3_store"])
def store(request: pytest.FixtureRequest) -> ArtifactStore:
    """An empty artifact store of each kind in turn."""
    found: ArtifactStore = request.getfixturevalue(request.param)
    return found
