"""Artifact store ``gcs``, in the worker and in a job."""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.errors import ArtifactExistsError, ArtifactNotFoundError
from tests.clouds.gcp.emulated import JOB, WORKER, EmulatedGcp, hosts_with, metadata_server
from tests.clouds.gcp.storage import StorageFront
from tests.engines import run

MEBIBYTE = 1024 * 1024
BUCKET = "values.of-tests"


@pytest.fixture(scope="module")
def bucket(storage: StorageFront) -> str:
    """A bucket of the project."""
    storage.make_bucket(BUCKET)
    return BUCKET


@pytest.fixture
def values(bucket: str, connection: str) -> GcsArtifactStore:
    """A store in an empty folder of the bucket."""
    return GcsArtifactStore(name="values", bucket=bucket, prefix=f"team/{uuid.uuid4().hex}", connection=connection)


def in_job(code: str, variables: dict[str, str], *arguments: str, hosts: Path | None = None) -> str:
    """Run Python as a job does: with its own variables, without Airflow's connections.

    :param hosts: what the process sees as ``/etc/hosts``.
    """
    usual = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}
    mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
    there = ("unshare", "--mount", "sh", "-c", mount, str(hosts)) if hosts else ()
    return run(*there, sys.executable, "-c", code, *arguments, environment={**usual, **variables})


def test_an_object_is_there_from_put_to_delete(
    values: GcsArtifactStore, bucket: str, storage: StorageFront, gcp: EmulatedGcp
) -> None:
    store = values.open()
    uri = f"{store.root}/runs/a/result.json"
    with pytest.raises(ArtifactNotFoundError, match=uri):
        store.get(uri)
    store.put(uri, b"first")
    assert (store.get(uri), store.size(uri), store.list(store.root)) == (b"first", 5, [uri])
    assert storage.get(bucket, uri.removeprefix(f"gs://{bucket}/")) == b"first"
    store.delete(uri)
    assert store.list(store.root) == []
    assert {call.caller for call in gcp.calls if call.service == "storage"} == {WORKER}


def test_a_long_value_comes_back_whole(values: GcsArtifactStore) -> None:
    store = values.open()
    uri, blocks = f"{store.root}/value", [os.urandom(12 * MEBIBYTE) for _ in range(3)]
    with store.writer(uri) as file:
        for block in blocks:
            file.write(block)
    with store.reader(uri) as stream:
        assert b"".join(iter(lambda: stream.read(5 * MEBIBYTE), b"")) == b"".join(blocks)


def test_of_two_that_put_if_absent_at_once_exactly_one_wins(values: GcsArtifactStore) -> None:
    rivals, ready = [values.open(), values.open()], threading.Barrier(2, timeout=30)

    def take(number: int, uri: str) -> bool:
        ready.wait()
        try:
            rivals[number].put_if_absent(uri, str(number).encode())
        except ArtifactExistsError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for attempt in range(10):
            uri = f"{values.root()}/lock-{attempt}"
            won = list(pool.map(take, [0, 1], [uri] * 2))
            assert sorted(won) == [False, True]
            assert rivals[0].get(uri) == str(won.index(True)).encode()


IN_JOB = """
import sys
from airflow_stepops.artifacts.store import ArtifactStore
store = ArtifactStore(sys.argv[1])
store.put_if_absent(sys.argv[2], b"from the job")
print("google.auth" in sys.modules)
"""


def test_a_job_opens_the_store_with_its_variables_and_a_credential_file(
    values: GcsArtifactStore, gcp: EmulatedGcp, tmp_path: Path
) -> None:
    (tmp_path / "key.json").write_text(json.dumps(gcp.key(JOB)))
    uri = f"{values.root()}/value"
    variables = {**values.job_environment(), "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    assert in_job(IN_JOB, variables, values.root(), uri) == "False\n"
    assert gcp.calls[-1].caller == JOB
    assert values.open().get(uri) == b"from the job"


def test_a_job_finds_the_service_account_of_its_machine_by_itself(
    values: GcsArtifactStore, gcp: EmulatedGcp, tmp_path: Path
) -> None:
    uri, hosts = f"{values.root()}/value", tmp_path / "hosts"
    with metadata_server(gcp) as address:
        hosts.write_text(hosts_with(address))
        in_job(IN_JOB, dict(values.job_environment()), values.root(), uri, hosts=hosts)
    assert (gcp.calls[-1].caller, gcp.grants[-1]) == (JOB, "metadata")
    assert values.open().get(uri) == b"from the job"
