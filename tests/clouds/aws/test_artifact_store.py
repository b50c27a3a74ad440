"""Artifact store ``s3``, in the worker and in a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.clouds.aws import connection as connections
from airflow_stepops.clouds.aws.artifact_store import S3ArtifactStore
from airflow_stepops.errors import ArtifactError, ArtifactExistsError, ArtifactNotFoundError, StackError
from airflow_stepops.stacks.components import ArtifactStoreComponent
from airflow_stepops.stacks.flavors import component, component_from_document
from tests.clouds.aws.conftest import Connect
from tests.clouds.aws.emulated import ACCESS_KEY, REGION, SECRET_KEY, EmulatedAws

MEBIBYTE = 1024 * 1024
KMS_KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture(scope="module")
def bucket(aws: EmulatedAws) -> str:
    """A bucket in the region of the connections."""
    name = "values.of-tests"
    aws.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


@pytest.fixture
def values(bucket: str, connection: str) -> S3ArtifactStore:
    """A store in an empty folder of the bucket."""
    return S3ArtifactStore(name="values", bucket=bucket, prefix=f"team/{uuid.uuid4().hex}", connection=connection)


def in_job(code: str, variables: dict[str, str], *arguments: str) -> str:
    """Run Python as a job does: with its own variables and its role's keys, without Airflow's connections."""
    role = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    usual = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**usual, **role, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_object_is_there_from_put_to_delete(values: S3ArtifactStore, bucket: str, aws: EmulatedAws) -> None:
    store = values.open()
    uri = f"{store.root}/runs/a/result.json"
    with pytest.raises(ArtifactNotFoundError, match=uri):
        store.get(uri)
    store.put(uri, b"first")
    assert (store.get(uri), store.size(uri), store.list(store.root)) == (b"first", 5, [uri])
    assert (
        aws.client("s3").get_object(Bucket=bucket, Key=uri.removeprefix(f"s3://{bucket}/"))["Body"].read() == b"first"
    )
    store.delete(uri)
    assert store.list(store.root) == []


def test_a_long_value_comes_back_whole(values: S3ArtifactStore) -> None:
    store = values.open()
    uri, blocks = f"{store.root}/value", [os.urandom(12 * MEBIBYTE) for _ in range(3)]
    with store.writer(uri) as file:
        for block in blocks:
            file.write(block)
    with store.reader(uri) as stream:
        assert b"".join(iter(lambda: stream.read(5 * MEBIBYTE), b"")) == b"".join(blocks)


def test_of_two_that_put_if_absent_at_once_exactly_one_wins(values: S3ArtifactStore) -> None:
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


def test_a_job_opens_the_store_with_its_variables_and_its_role(values: S3ArtifactStore) -> None:
    uri = f"{values.root()}/value"
    code = """
import sys
from airflow_stepops.artifacts.store import ArtifactStore
store = ArtifactStore(sys.argv[1])
store.put_if_absent(sys.argv[2], b"from the job")
print("boto3" in sys.modules)
"""
    assert in_job(code, dict(values.job_environment()), values.root(), uri) == "False\n"
    assert values.open().get(uri) == b"from the job"


def test_no_secret_goes_to_a_job_or_into_a_document(values: S3ArtifactStore, aws: EmulatedAws) -> None:
    assert values.job_environment() == {"AWS_REGION": REGION, "AWS_ENDPOINT": aws.url, "AWS_ALLOW_HTTP": "true"}
    told = json.dumps([values.document(), dict(values.job_environment()), repr(values), values.root()])
    assert ACCESS_KEY not in told
    assert SECRET_KEY not in told
    assert component_from_document(ArtifactStoreComponent, values.document()) == values


def test_aws_itself_needs_only_a_region_in_the_job(connect: Connect) -> None:
    store = S3ArtifactStore(bucket="abc", region="eu-west-1", connection=connect(endpoint_url=None))
    assert store.job_environment() == {"AWS_REGION": "eu-west-1"}
    other = S3ArtifactStore(bucket="abc", region="r", endpoint="https://minio.test:9000/", connection=connect())
    assert other.job_environment() == {"AWS_REGION": "r", "AWS_ENDPOINT": "https://minio.test:9000"}


def test_the_region_is_asked_of_the_bucket_once(aws: EmulatedAws, connection: str) -> None:
    name = f"far-{uuid.uuid4().hex}"
    configuration = {"LocationConstraint": "ap-south-1"}
    aws.client("s3", "ap-south-1").create_bucket(Bucket=name, CreateBucketConfiguration=configuration)
    store = S3ArtifactStore(bucket=name, connection=connection)
    for _ in range(3):
        assert store.job_environment()["AWS_REGION"] == "ap-south-1"
        store.open()
    assert aws.count(f"HEAD /{name}") == 1


def test_a_bucket_that_does_not_exist_is_said(connection: str) -> None:
    with pytest.raises(ArtifactError, match="bucket 'nobody' does not exist: make it, or correct its name"):
        S3ArtifactStore(bucket="nobody", connection=connection).open()
    store = S3ArtifactStore(bucket="nobody", connection=connection, region=REGION).open()
    with pytest.raises(ArtifactError, match=r"^s3://nobody/a: the bucket does not exist"):
        store.put("s3://nobody/a", b"")


def test_everything_is_encrypted_with_the_key_of_the_store(
    values: S3ArtifactStore, bucket: str, aws: EmulatedAws
) -> None:
    encrypted = values.overridden({"kms_key": KMS_KEY})
    store = encrypted.open()
    store.put(f"{store.root}/short", b"x")
    with store.writer(f"{store.root}/long") as file:
        for _ in range(3):
            file.write(bytes(12 * MEBIBYTE))
    code = """
import sys
from airflow_stepops.artifacts.store import ArtifactStore
ArtifactStore(sys.argv[1]).put(sys.argv[2], b"")
"""
    in_job(code, dict(encrypted.job_environment()), store.root, f"{store.root}/of-job")
    for name in ("short", "long", "of-job"):
        found = aws.client("s3").head_object(Bucket=bucket, Key=f"{encrypted.prefix}/{name}")
        assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY), name


def test_a_store_that_is_open_for_long_takes_new_keys(
    aws: EmulatedAws, bucket: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(role_arn="arn:aws:iam::123456789012:role/steps")
    store = S3ArtifactStore(bucket=bucket, connection=connection, region=REGION).open()
    uri = f"{store.root}/of-a-day/value"
    store.put(uri, b"")
    morning = aws.signed_with[-1]
    store.get(uri)
    assert aws.signed_with[-1] == morning
    # What would come by itself after some time: the store asks for keys again, and the connection is read again.
    monkeypatch.setattr("airflow_stepops.clouds.aws.bucket._LIFETIME", timedelta(0))
    monkeypatch.setattr(connections, "_KEPT_SECONDS", 0.0)
    store = S3ArtifactStore(bucket=bucket, connection=connection, region=REGION).open()
    signed = []
    for _ in range(2):
        store.get(uri)
        signed.append(aws.signed_with[-1])
    assert len({morning, *signed}) == 3
    assert all(key.startswith("ASIA") and token for key, token in signed)


def test_without_credentials_it_is_said_where_they_come_from(connect: Connect, bucket: str) -> None:
    store = S3ArtifactStore(bucket=bucket, region=REGION, connection=connect(login=None, password=None)).open()
    with pytest.raises(ArtifactError, match=r"no AWS credentials: .*Airflow connection of type aws"):
        store.put(f"s3://{bucket}/a", b"")


def test_a_connection_that_is_missing_is_said_before_anything_is_written() -> None:
    with pytest.raises(StackError, match="no Airflow connection 'aws_nobody'"):
        S3ArtifactStore(bucket="abc", region=REGION, connection="aws_nobody").open()


def test_keys_are_not_in_the_error_of_a_store_that_refuses(connect: Connect) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        store = S3ArtifactStore(bucket="abc", region=REGION, endpoint=endpoint, connection=connect()).open()
        with pytest.raises(ArtifactError, match="AccessDenied") as raised:
            store.get("s3://abc/a")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert SECRET_KEY not in str(raised.value)
    assert ACCESS_KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bucket": "Values"}, "lower-case"),
        ({"bucket": "s3://values"}, "give the name alone"),
        ({"bucket": "values/team"}, "folders go into 'prefix'"),
        ({"bucket": "ab"}, "3 to 63"),
        ({"bucket": "a..b"}, "give the name alone"),
        ({"bucket": "192.168.0.1"}, "give the name alone"),
        ({"bucket": "abc", "prefix": "/team"}, "give a folder"),
        ({"bucket": "abc", "prefix": "team/../other"}, "give a folder"),
        ({"bucket": "abc", "prefix": "team?x"}, "give a folder"),
        ({"bucket": "abc", "endpoint": "minio:9000"}, "give a scheme and a host"),
        ({"bucket": "abc", "endpoint": "https://key:word@minio"}, "give a scheme and a host"),
        ({"bucket": "abc", "regoin": "x"}, "Did you mean 'region'"),
        ({}, "this setting is required"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(StackError, match=said):
        component("artifact_stores", "values", {"flavor": "s3", **settings}, "stepops.yaml: artifact_stores.values")


PARTS = st.text("abcXYZ019!_.*'()-", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))


@given(prefix=st.lists(PARTS, max_size=4).map("/".join))
def test_any_folder_is_the_root_of_a_store(prefix: str) -> None:
    store = S3ArtifactStore(bucket="abc", prefix=prefix, region=REGION, endpoint="http://127.0.0.1:9")
    assert store.open().root == store.root() == "/".join(["s3://abc", *([prefix] if prefix else [])])


def test_reading_the_flavor_imports_no_sdk() -> None:
    code = """
import sys
import airflow_stepops.clouds.aws.artifact_store
print(sorted({"boto3", "botocore", "airflow", "obstore"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
