"""An artifact store keeps its promises, whether it is a folder or a bucket."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_stepops.artifacts import values
from airflow_stepops.artifacts.store import ArtifactStore, open_store, register_opener
from airflow_stepops.errors import ArtifactError, ArtifactExistsError, ArtifactNotFoundError
from tests.artifacts.conftest import BUCKET
from tests.images.faults import faulty_proxy

MEBIBYTE = 1024 * 1024
same_store = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_an_object_is_there_from_put_to_delete(store: ArtifactStore) -> None:
    uri = f"{store.root}/runs/a/result.json"
    assert not store.exists(uri)
    store.put(uri, b"first")
    assert (store.exists(uri), store.size(uri), store.get(uri)) == (True, 5, b"first")
    store.put(uri, b"")
    assert (store.size(uri), store.get(uri)) == (0, b"")
    store.delete(uri)
    assert not store.exists(uri)
    store.delete(uri)


def test_a_list_has_all_below_a_folder_and_nothing_beside(store: ArtifactStore) -> None:
    names = ["runs/a/1", "runs/a/2/3", "runs/ab", "runs/b/1"]
    for name in reversed(names):
        store.put(f"{store.root}/{name}", b"")
    uris = [f"{store.root}/{name}" for name in names]
    assert store.list(store.root) == store.list(f"{store.root}/") == sorted(uris)
    assert store.list(f"{store.root}/runs/a") == store.list(f"{store.root}/runs/a/") == uris[:2]
    assert store.list(f"{store.root}/runs/a/1") == store.list(f"{store.root}/other") == []


def test_a_list_tells_when_each_object_was_written(store: ArtifactStore) -> None:
    begun = time.time()
    for name in ("a", "b"):
        store.put(f"{store.root}/runs/{name}", b"")
    found = store.written(f"{store.root}/runs")
    assert sorted(found) == store.list(store.root)
    assert all(begun - 2 <= at <= time.time() + 2 for at in found.values()), "S3 tells whole seconds"


def test_a_list_may_be_longer_than_one_answer_of_the_service(
    s3_store: ArtifactStore, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "5")
    uris = [f"{s3_store.root}/{number:02}" for number in range(13)]
    for uri in uris:
        s3_store.put(uri, b"")
    with urlopen(f"{s3_server}/{BUCKET}?list-type=2&prefix={s3_store.root.removeprefix(f's3://{BUCKET}/')}") as answer:
        assert answer.read().count(b"<Key>") == 5
    assert s3_store.list(s3_store.root) == uris


def test_a_folder_is_not_an_object(store: ArtifactStore) -> None:
    uri = f"{store.root}/folder"
    store.put(f"{uri}/object", b"x")
    assert not store.exists(uri)
    assert not store.exists(f"{uri}/object/below")
    with pytest.raises(ArtifactNotFoundError):
        store.get(uri)
    store.delete(uri)
    store.delete(f"{uri}/object/below")
    assert store.list(store.root) == [f"{uri}/object"]


@pytest.mark.parametrize("key", ["b", "o/below"])
def test_a_write_that_the_folders_forbid_names_the_uri(key: str, folder_store: ArtifactStore) -> None:
    folder_store.put(f"{folder_store.root}/b/c", b"")
    folder_store.put(f"{folder_store.root}/o", b"")
    uri = f"{folder_store.root}/{key}"
    with pytest.raises(ArtifactError, match=uri) as raised:
        folder_store.put(uri, b"")
    assert not isinstance(raised.value, ArtifactNotFoundError | ArtifactExistsError)


PARTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\\/"), min_size=1, max_size=30)
KEYS = st.lists(PARTS.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map("/".join)


@given(key=KEYS)
@same_store
def test_any_text_names_an_object_that_is_listed_and_read_by_the_same_uri(key: str, store: ArtifactStore) -> None:
    fresh = ArtifactStore(f"{store.root}/{uuid.uuid4().hex}")
    uri = f"{fresh.root}/{key}"
    fresh.put(uri, key.encode())
    assert fresh.list(fresh.root) == [uri]
    assert fresh.get(uri) == key.encode()
    fresh.delete(uri)
    assert fresh.list(fresh.root) == []


OPERATIONS: list[Callable[[ArtifactStore, str], object]] = [
    lambda store, uri: store.get(uri),
    lambda store, uri: store.put(uri, b""),
    lambda store, uri: store.put_if_absent(uri, b""),
    lambda store, uri: store.size(uri),
    lambda store, uri: store.exists(uri),
    lambda store, uri: store.delete(uri),
    lambda store, uri: store.list(uri),
    lambda store, uri: store.reader(uri).__enter__(),
    lambda store, uri: store.writer(uri).__enter__(),
]
BAD_PARTS = st.sampled_from(["..", ".", "", "a\\b", "..\\..", "a\0b", "\n", "\x7f", "\ud800"])


@st.composite
def bad_keys(draw: st.DrawFn) -> str:
    before, after = draw(st.lists(PARTS, max_size=2)), draw(st.lists(PARTS, min_size=1, max_size=2))
    return "/".join([*before, draw(BAD_PARTS), *after])


@pytest.mark.parametrize("kind", ["file:///data/store", "s3://bucket/store"])
@given(key=bad_keys(), operation=st.sampled_from(OPERATIONS))
@settings(deadline=None, max_examples=150)
def test_a_uri_that_leaves_the_root_or_is_no_key_is_refused(
    kind: str, key: str, operation: Callable[[ArtifactStore, str], object]
) -> None:
    with pytest.raises(ArtifactError, match="is not an object under the artifact store"):
        operation(ArtifactStore(kind), f"{kind}/{key}")


@pytest.mark.parametrize("kind", ["file:///data/store", "s3://bucket/store"])
@given(operation=st.sampled_from(OPERATIONS), data=st.data())
@settings(deadline=None)
def test_a_uri_of_another_root_is_refused(
    kind: str, operation: Callable[[ArtifactStore, str], object], data: st.DataObject
) -> None:
    others = [f"{kind}2/a", f"{kind[:-1]}/a", "file:///etc/passwd", "s3://other/store/a", "a", "", kind.upper() + "/a"]
    with pytest.raises(ArtifactError, match="is not an object under the artifact store"):
        operation(ArtifactStore(kind), data.draw(st.sampled_from(others)))


OF_NO_STORE = ["http://host/store", "memory://store", "/data/store", "data", "", "s3://", "s3:///store", "gs://", "az:"]
HALF = ["file://host/data", "file://", "file:///", "file:data", "s3://bucket/a?versionId=1", "file:///data#1"]
OF_NO_FOLDER = ["file:///data/../etc", "s3://bucket/../other", "s3://bucket/a//b", "file:///data/a\nb"]


@pytest.mark.parametrize("root", [*OF_NO_STORE, *HALF, *OF_NO_FOLDER])
def test_a_root_that_no_store_can_have_is_refused(root: str) -> None:
    with pytest.raises(ArtifactError, match="artifact store") as raised:
        ArtifactStore(root)
    assert repr(root) in str(raised.value)


def test_of_two_that_put_if_absent_at_once_exactly_one_wins(store: ArtifactStore) -> None:
    ready = threading.Barrier(2, timeout=30)
    rivals = {b"one": store, b"two": ArtifactStore(store.root)}

    def take(name: bytes, uri: str) -> str:
        ready.wait()
        try:
            rivals[name].put_if_absent(uri, name)
        except ArtifactExistsError as error:
            return str(error)
        return name.decode()

    with ThreadPoolExecutor(2) as pool:
        for attempt in range(20):
            uri = f"{store.root}/lock-{attempt}"
            said = set(pool.map(take, rivals, [uri] * 2))
            assert said == {store.get(uri).decode(), f"there is something at {uri} already"}


def test_put_if_absent_leaves_what_is_there(store: ArtifactStore) -> None:
    uri = f"{store.root}/lock"
    store.put(uri, b"mine")
    with pytest.raises(ArtifactExistsError, match=uri):
        store.put_if_absent(uri, b"theirs")
    assert store.get(uri) == b"mine"
    store.delete(uri)
    store.put_if_absent(uri, b"theirs")
    assert store.get(uri) == b"theirs"
    assert store.list(store.root) == [uri]


@pytest.mark.parametrize("sizes", [[], [0], [3], [12 * MEBIBYTE], [12 * MEBIBYTE] * 3, [16 * MEBIBYTE, 1], [7] * 1000])
def test_a_writer_puts_together_what_is_written(sizes: list[int], store: ArtifactStore) -> None:
    uri = f"{store.root}/value"
    blocks = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    with store.writer(uri) as file:
        for block in blocks:
            file.write(block)
        assert not store.exists(uri)
    assert store.get(uri) == b"".join(blocks)
    with store.reader(uri) as file:
        read = b"".join(iter(lambda: file.read(5 * MEBIBYTE), b""))
    assert read == b"".join(blocks)


def test_a_long_object_travels_in_parts(s3_server: str, s3_store: ArtifactStore) -> None:
    uri = f"{s3_store.root}/value"
    with s3_store.writer(uri) as file:
        for _ in range(3):
            file.write(bytes(12 * MEBIBYTE))
    with urlopen(Request(uri.replace("s3:/", s3_server), method="HEAD")) as answer:
        assert answer.headers["ETag"].strip('"').endswith("-3")


@pytest.mark.parametrize("size", [0, 10, 40 * MEBIBYTE])
def test_a_writer_leaves_nothing_when_its_block_fails(size: int, store: ArtifactStore, s3_server: str) -> None:
    uri = f"{store.root}/value"
    store.put(uri, b"before")
    with pytest.raises(KeyboardInterrupt), store.writer(uri) as file:
        file.write(bytes(size))
        raise KeyboardInterrupt
    assert store.get(uri) == b"before"
    assert store.list(store.root) == [uri]
    folder = store.local_path(uri)
    assert folder is None or [path.name for path in folder.parent.iterdir()] == ["value"]
    with urlopen(f"{s3_server}/{BUCKET}?uploads") as answer:
        assert b"<Upload>" not in answer.read()


def test_files_that_are_still_written_are_not_listed(folder_store: ArtifactStore) -> None:
    with folder_store.writer(f"{folder_store.root}/value") as file:
        file.write(b"x")
        file.flush()
        assert folder_store.list(folder_store.root) == []
    assert folder_store.list(folder_store.root) == [f"{folder_store.root}/value"]


READS: list[Callable[[ArtifactStore, str], object]] = [
    lambda store, uri: store.get(uri),
    lambda store, uri: store.size(uri),
    lambda store, uri: store.reader(uri).__enter__().read(1),
]


@pytest.mark.parametrize("read", READS, ids=["get", "size", "reader"])
def test_what_is_not_there_is_said_by_its_uri(
    read: Callable[[ArtifactStore, str], object], store: ArtifactStore
) -> None:
    with pytest.raises(ArtifactNotFoundError, match=f"there is nothing at {store.root}/gone"):
        read(store, f"{store.root}/gone")


def test_a_bucket_that_does_not_exist_is_said(s3_root: str) -> None:
    store = ArtifactStore("s3://nobody/store")
    for write in (*OPERATIONS[1:3], write_out):
        with pytest.raises(ArtifactError, match=r"^s3://nobody/store/a: the bucket does not exist") as raised:
            write(store, "s3://nobody/store/a")
        assert not isinstance(raised.value, ArtifactNotFoundError)


def write_out(store: ArtifactStore, uri: str) -> None:
    with store.writer(uri) as file:
        for _ in range(5):
            file.write(bytes(10 * MEBIBYTE))


def test_a_folder_that_may_not_be_written_is_said() -> None:
    store = ArtifactStore("file:///proc/store")
    with pytest.raises(ArtifactError, match="file:///proc/store/a: "):
        store.put("file:///proc/store/a", b"")


def test_the_file_of_an_object_is_below_the_folder(folder_store: ArtifactStore, s3_store: ArtifactStore) -> None:
    uri = f"{folder_store.root}/a/b"
    folder_store.put(uri, b"x")
    path = folder_store.local_path(uri)
    assert path is not None
    assert path.read_bytes() == b"x"
    assert s3_store.local_path(f"{s3_store.root}/a/b") is None
    with pytest.raises(ArtifactError, match="is not an object"):
        folder_store.local_path(f"{folder_store.root}/../b")


def test_a_root_with_spaces_and_percent_signs_is_that_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a b%41é"
    store = ArtifactStore(folder.as_uri())
    store.put(f"{store.root}/c%20d", b"x")
    assert (folder / "c%20d").read_bytes() == b"x"
    assert store.list(store.root) == [f"{store.root}/c%20d"]


def test_a_reference_finds_its_store_by_its_uri(store: ArtifactStore) -> None:
    for prefix in (f"{store.root}/runs/dag/run/task/output", f"{store.root}/elsewhere/output"):
        reference = values.save({"a": 1}, store, prefix)
        assert reference.load() == {"a": 1}


def test_an_opener_is_asked_for_the_store_before_the_environment(
    folder_store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_stepops.artifacts.store._openers", [])
    register_opener(lambda uri: folder_store if uri.startswith(folder_store.root) else None)
    assert open_store(f"{folder_store.root}/a/b") is folder_store
    assert open_store("s3://bucket/prefix/runs/a/b").root == "s3://bucket/prefix"


class Service(ThreadingHTTPServer):
    """Clients may hang up: that is no error here."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Be quiet."""


class Refusing(BaseHTTPRequestHandler):
    """S3 as it is on a bad day: every key says what is wrong with it."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(f"{self.command} {self.path.partition('=')[0]}")
        if "/cut" in self.path:
            self.reply(200, b"a few bytes", length=5000)
            self.close_connection = True
        elif self.command == "POST" and "?uploads" in self.path:
            body = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            self.reply(200, body, length=len(body))
        elif self.command == "DELETE":
            self.reply(204, b"", length=0)
        else:
            self.reply(403, b"<Error><Code>AccessDenied</Code></Error>", length=40)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

    def reply(self, status: int, body: bytes, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Sun, 01 Mar 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def refusing(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The environment points to an S3 that refuses; yields what it is asked."""
    Refusing.asked = []
    server = Service(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield Refusing.asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "operation",
    [*OPERATIONS[:6], lambda store, uri: store.list(store.root), READS[2], write_out],
    ids=["get", "put", "put_if_absent", "size", "exists", "delete", "list", "reader", "writer"],
)
def test_a_store_that_refuses_is_an_error_with_the_uri(
    operation: Callable[[ArtifactStore, str], object], refusing: list[str]
) -> None:
    with pytest.raises(ArtifactError, match=r"^s3://bucket/store(/denied)?: ") as raised:
        operation(ArtifactStore("s3://bucket/store"), "s3://bucket/store/denied")
    assert "secret" not in str(raised.value)


def test_an_upload_that_is_refused_half_way_is_ended_at_the_service(refusing: list[str]) -> None:
    store = ArtifactStore("s3://bucket/store")
    with pytest.raises(ArtifactError, match=r"s3://bucket/store/model.npy: "):
        values.save(np.zeros(50 * MEBIBYTE, "u1"), store, "s3://bucket/store/model")
    assert "POST /bucket/store/model.npy?uploads" in refusing
    assert "DELETE /bucket/store/model.npy?uploadId" in refusing


class _Stop(BaseException):
    """As a job's stop: raised wherever the main thread is."""


@pytest.mark.parametrize("parts", [8, 9, 10])
def test_a_writer_that_is_stopped_while_its_parts_travel_leaves_all_or_nothing(
    parts: int, s3_server: str, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their number, the stop comes while the last is on its way, before its end is said, or while one is written."""
    go_on = threading.Event()

    def stop(_signal: int, _frame: object) -> None:
        assert not go_on.is_set(), "the writer does not end"
        go_on.set()
        raise _Stop

    previous = signal.signal(signal.SIGALRM, stop)
    with faulty_proxy(s3_server.removeprefix("http://")) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://{proxy.host}")
        proxy.add("header", "PUT", "partNumber=", times=100, on_sent=go_on.wait)
        store = ArtifactStore(s3_root)
        signal.setitimer(signal.ITIMER_REAL, 0.5, 15)
        try:
            with pytest.raises(_Stop), store.writer(f"{s3_root}/model") as file:
                for _ in range(parts):
                    file.write(bytes(16 * MEBIBYTE))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        given_up = proxy.count("DELETE", "uploadId=")
    left = [store.size(uri) for uri in store.list(s3_root)]
    assert (given_up, left) in [(1, []), (0, [parts * 16 * MEBIBYTE])]


def test_an_object_that_is_cut_off_on_the_way_is_an_error_with_the_uri(refusing: list[str]) -> None:
    store = ArtifactStore("s3://bucket/store")
    with pytest.raises(ArtifactError, match=r"^s3://bucket/store/cut: "):
        store.get("s3://bucket/store/cut")
    with pytest.raises(ArtifactError, match=r"^s3://bucket/store/cut: "), store.reader("s3://bucket/store/cut") as file:
        file.read()
