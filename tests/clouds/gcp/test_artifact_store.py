"""Artifact store ``gcs``, in the worker and in a job."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.clouds.gcp.artifact_store import GcsArtifactStore
from airflow_stepops.errors import ArtifactError, ArtifactExistsError, ArtifactNotFoundError, StackError
from airflow_stepops.jobs.ledger import Ledger
from airflow_stepops.runtime.spec import Attempt
from airflow_stepops.stacks.components import ArtifactStoreComponent
from airflow_stepops.stacks.flavors import component, component_from_document
from tests.clouds.gcp.conftest import Connect
from tests.clouds.gcp.emulated import JOB, WORKER, Answer, Api, Call, EmulatedGcp, Reset, hosts_with, metadata_server
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
    store, before = values.open(), len(gcp.calls)
    uri = f"{store.root}/runs/a/result.json"
    with pytest.raises(ArtifactNotFoundError, match=uri):
        store.get(uri)
    store.put(uri, b"first")
    assert (store.get(uri), store.size(uri), store.list(store.root)) == (b"first", 5, [uri])
    assert storage.get(bucket, uri.removeprefix(f"gs://{bucket}/")) == b"first"
    store.delete(uri)
    assert store.list(store.root) == []
    assert {call.caller for call in gcp.calls[before:] if call.service == "storage"} == {WORKER}


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


def test_credentials_of_the_worker_s_machine_are_not_those_of_the_connection(
    values: GcsArtifactStore, gcp: EmulatedGcp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.json").write_text(json.dumps(gcp.key("machine@x.iam.gserviceaccount.com")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    values.open().put(f"{values.root()}/value", b"")
    assert gcp.calls[-1].caller == WORKER


def test_an_emulator_without_logins_is_for_an_anonymous_connection_and_for_jobs(
    values: GcsArtifactStore, gcp: EmulatedGcp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcp, "open_to_all", {"storage"})
    emulated = values.overridden({"connection": connect(keyfile_dict=None, is_anonymous=True)})
    in_job(IN_JOB, dict(emulated.job_environment()), values.root(), f"{values.root()}/value")
    assert emulated.open().get(f"{values.root()}/value") == b"from the job"
    assert gcp.calls[-1].caller == ""


def test_no_secret_goes_to_a_job_or_into_a_document(values: GcsArtifactStore, gcp: EmulatedGcp) -> None:
    assert values.job_environment() == {"GOOGLE_BASE_URL": gcp.storage_url, "GOOGLE_ALLOW_HTTP": "true"}
    values.open().put(f"{values.root()}/value", b"")
    told = json.dumps([values.document(), dict(values.job_environment()), repr(values), values.root()])
    assert not any(secret in told for secret in (gcp.key()["private_key"], *gcp.tokens))
    assert component_from_document(ArtifactStoreComponent, values.document()) == values


def test_google_itself_needs_no_variables_in_the_job(connect: Connect) -> None:
    connection = connect(api_endpoint_overrides={})
    assert GcsArtifactStore(bucket="abc", connection=connection).job_environment() == {}
    other = GcsArtifactStore(bucket="abc", connection=connection, endpoint="https://storage.test:9000/")
    assert other.job_environment() == {"GOOGLE_BASE_URL": "https://storage.test:9000"}


def test_a_cloud_with_a_domain_of_its_own_is_told_to_the_job(connect: Connect, gcp: EmulatedGcp) -> None:
    connection = connect(api_endpoint_overrides={}, keyfile_dict=gcp.key(universe_domain="cloud.example"))
    store = GcsArtifactStore(bucket="abc", connection=connection)
    assert store.job_environment() == {"GOOGLE_BASE_URL": "https://storage.cloud.example"}


def test_a_bucket_that_does_not_exist_is_said(connection: str, storage: StorageFront) -> None:
    store = GcsArtifactStore(bucket="nobody", connection=connection).open()
    with pytest.raises(ArtifactError, match=r"^gs://nobody/a: the bucket does not exist"):
        store.put("gs://nobody/a", b"")


def test_a_store_that_is_open_for_long_takes_new_tokens(
    values: GcsArtifactStore, gcp: EmulatedGcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcp, "token_seconds", 60.0)  # less than what is kept of a token's life for safety
    store = values.open()
    store.put(f"{store.root}/value", b"")
    before, used = len(gcp.grants), set()
    for _ in range(3):
        time.sleep(0.15)  # obstore does not ask for another token more often than each 0.1 s
        store.get(f"{store.root}/value")
        used.add(gcp.calls[-1].headers["authorization"])
    assert len(used) == len(gcp.grants) - before == 3


def test_one_token_serves_a_store_for_its_hour(values: GcsArtifactStore, gcp: EmulatedGcp) -> None:
    store, before = values.open(), len(gcp.grants)
    for number in range(5):
        store.put(f"{store.root}/{number}", b"")
    assert len(gcp.grants) - before <= 1


def test_what_fails_for_a_moment_is_tried_again(values: GcsArtifactStore, gcp: EmulatedGcp) -> None:
    store = values.open()
    plan = gcp.fail("storage", "/value$", 503, times=1)
    store.put(f"{store.root}/value", b"x")
    assert plan.times == 0
    assert store.get(f"{store.root}/value") == b"x"


def losing_answers(storage: StorageFront, method: str, times: int) -> Api:
    """Return a Cloud Storage that does what it is asked, and then hangs up on the first calls of a method."""
    left = [None] * times

    def answer(call: Call) -> Answer:
        done = storage(call)
        if call.method == method and left:
            left.pop()
            raise Reset
        return done

    return answer


def test_a_claim_whose_answer_is_lost_is_ours_all_the_same(
    values: GcsArtifactStore, gcp: EmulatedGcp, storage: StorageFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gcp.apis, "storage", losing_answers(storage, "PUT", 1))
    store, attempt = values.open(), Attempt("dag", "run", "task", -1, 1, "instance", "ti-1")
    before = gcp.count("storage", "PUT")
    assert Ledger(store, attempt).claim("attempt-2") is True
    assert gcp.count("storage", "PUT") - before == 2
    assert Ledger(store, attempt).claim("cancel") is False


def test_a_long_value_survives_connections_that_break_on_the_way(
    values: GcsArtifactStore, gcp: EmulatedGcp, storage: StorageFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gcp.apis, "storage", losing_answers(storage, "PUT", 2))
    store, data = values.open(), os.urandom(20 * MEBIBYTE)
    with store.writer(f"{store.root}/value") as file:
        file.write(data)
    assert store.get(f"{store.root}/value") == data


def test_a_write_that_is_abandoned_leaves_nothing(values: GcsArtifactStore, storage: StorageFront) -> None:
    store = values.open()

    def write() -> None:
        with store.writer(f"{store.root}/value") as file:
            file.write(os.urandom(20 * MEBIBYTE))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write()
    assert store.list(store.root) == []
    assert storage.uploads == {}


def test_without_credentials_it_is_said_where_they_come_from(
    values: GcsArtifactStore, gcp: EmulatedGcp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = r"bucket 'values\.of-tests': there are no Google credentials: .*Airflow connection of type google_cloud"
    with pytest.raises(ArtifactError, match=said):
        values.overridden({"connection": connect(keyfile_dict=None)}).open()
    gone = "gone@x.iam.gserviceaccount.com"
    monkeypatch.setattr(gcp, "disabled", {gone})
    store = values.overridden({"connection": connect(keyfile_dict=gcp.key(gone))}).open()
    with pytest.raises(ArtifactError, match=r"does not take the credentials: .*account not found"):
        store.put(f"{values.root()}/a", b"")


def test_a_connection_that_is_missing_is_said_before_anything_is_written() -> None:
    with pytest.raises(StackError, match="no Airflow connection 'gcp_nobody'"):
        GcsArtifactStore(bucket="abc", connection="gcp_nobody").open()


def test_a_store_that_refuses_says_why_without_a_secret(values: GcsArtifactStore, gcp: EmulatedGcp) -> None:
    said = f"{WORKER} does not have storage.objects.get access to the Google Cloud Storage object."
    plan = gcp.fail("storage", "/secret$", 403, "PERMISSION_DENIED", said)
    with pytest.raises(ArtifactError, match=r"storage\.objects\.get") as raised:
        values.open().get(f"{values.root()}/secret")
    plan.times = 0
    assert not any(token in str(raised.value) for token in gcp.tokens)


def test_a_folder_has_a_page_in_the_console(values: GcsArtifactStore) -> None:
    page = "https://console.cloud.google.com/storage/browser"
    assert values.console_url(f"{values.root()}/runs/a") == f"{page}/{BUCKET}/{values.prefix}/runs/a"
    assert values.overridden({"endpoint": "http://127.0.0.1:1"}).console_url(values.root()) == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bucket": "Values"}, "lower-case"),
        ({"bucket": "gs://values"}, "give the name alone"),
        ({"bucket": "values/team"}, "folders go into 'prefix'"),
        ({"bucket": "ab"}, "3 to 63"),
        ({"bucket": "b" * 64}, "3 to 63"),
        ({"bucket": "a..b"}, "give the name alone"),
        ({"bucket": "192.168.0.1"}, "give the name alone"),
        ({"bucket": "abc", "prefix": "/team"}, "give a folder"),
        ({"bucket": "abc", "prefix": "team/../other"}, "give a folder"),
        ({"bucket": "abc", "prefix": "team?x"}, "give a folder"),
        ({"bucket": "abc", "endpoint": "storage:4443"}, "give a scheme and a host"),
        ({"bucket": "abc", "endpoint": "https://key:word@storage"}, "give a scheme and a host"),
        ({"bucket": "abc", "conection": "x"}, "Did you mean 'connection'"),
        ({}, "this setting is required"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(StackError, match=said):
        component("artifact_stores", "values", {"flavor": "gcs", **settings}, "stepops.yaml: artifact_stores.values")


PARTS = st.text("abcXYZ019!_.*'()-", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))


@pytest.fixture(scope="module")
def anonymous() -> Iterator[str]:
    """Id of an Airflow connection without credentials."""
    connection = {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_GCP_ANONYMOUS", json.dumps(connection))
        yield "gcp_anonymous"


@given(prefix=st.lists(PARTS, max_size=4).map("/".join))
def test_any_folder_is_the_root_of_a_store(anonymous: str, prefix: str) -> None:
    store = GcsArtifactStore(bucket="abc", prefix=prefix, connection=anonymous, endpoint="http://127.0.0.1:9")
    assert store.open().root == store.root() == "/".join(["gs://abc", *([prefix] if prefix else [])])


def test_reading_the_flavors_imports_no_client() -> None:
    code = """
import sys
import airflow_stepops.clouds.gcp.artifact_store, airflow_stepops.clouds.gcp.container_registry
print(sorted({"google.auth", "httpx", "airflow", "obstore"} & set(sys.modules)))
"""
    assert run(sys.executable, "-c", code) == "[]\n"
