"""A registry that answers as it likes: every call ends, with an answer or with a RegistryError."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_stepops.errors import RegistryError
from airflow_stepops.images.manifests import Descriptor
from airflow_stepops.images.registry.blobs import DOCUMENT_BYTES, BytesBlob
from airflow_stepops.images.registry.client import RegistryClient

BLOB = BytesBlob.of(b"content")


@dataclass
class Liar:
    """A server that gives prepared answers, the last one again and again: status, headers, body.

    :param endless: whether the body goes on for ever.
    """

    host: str = ""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    endless: bool = False
    sent: int = 0

    def client(self) -> RegistryClient:
        return RegistryClient(f"{self.host}/team/image", credentials=lambda: ("name", "password"))


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    found = Liar()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            status, headers, body = found.answers.pop(0) if len(found.answers) > 1 else found.answers[0]
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(body)
            while found.endless:
                try:
                    self.wfile.write(b" " * 65536)
                except OSError:
                    return
                found.sent += 65536

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = answer

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


CALLS: dict[str, Callable[[RegistryClient], Any]] = {
    "has_blob": lambda client: client.has_blob(BLOB.digest),
    "put_blob": lambda client: client.put_blob(BLOB),
    "get_blob": lambda client: client.get_document(Descriptor("", BLOB.digest, 7)),
    "mount_blob": lambda client: client.mount_blob(BLOB.digest, "other/image"),
    "head_manifest": lambda client: client.head_manifest("tag"),
    "get_manifest": lambda client: client.get_manifest("tag"),
    "put_manifest": lambda client: client.put_manifest("tag", "type", b"{}"),
}
by_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())

values = st.sampled_from(
    [
        "/v2/team/image/blobs/uploads/1",
        "http://[",
        "ftp://127.0.0.1/",
        "http://127.0.0.1:99999999/",
        "//",
        "\xb2",
        "0-\xb2",
        f"0-{'9' * 5000}",
        "nan",
        BLOB.digest,
        "sha256:short",
        'Bearer realm="http://["',
        'Bearer realm="/token"',
        'Bearer realm="",service=""',
        'Basic realm="x"',
    ]
)
headers = st.dictionaries(
    st.sampled_from(["Location", "Range", "WWW-Authenticate", "Docker-Content-Digest", "Content-Type"]), values
)
bodies = st.binary(max_size=40) | st.sampled_from(
    [
        b'{"token": "\\u00e9"}',
        b'{"token": "a\\nb"}',
        b'{"token": "t", "expires_in": 1e999}',
        b'{"errors": {"a": 1}}',
        b'{"errors": [3]}',
        b"[" * 100_000,
        b'{"errors":' + b"[" * 100_000,
    ]
)
#: Those that are not tried again, so that no example waits.
statuses = st.sampled_from([200, 201, 202, 204, 206, 301, 302, 307, 400, 401, 403, 404, 409, 416])


@by_call
@given(answers=st.lists(st.tuples(statuses, headers, bodies), min_size=1, max_size=4))
@settings(max_examples=25)
def test_whatever_a_registry_answers_the_call_ends_with_a_registry_error_or_not(
    call: Callable[[RegistryClient], Any], answers: list[tuple[int, dict[str, str], bytes]], liar: Liar
) -> None:
    liar.answers = [*answers, (418, {}, b"")]
    try:
        call(liar.client())
    except RegistryError:
        assert liar.host


@pytest.mark.parametrize("location", ["http://[", "http://127.0.0.1:99999999/", "http://\xb2/"])
def test_an_upload_that_is_sent_to_no_url_is_an_error(location: str, liar: Liar) -> None:
    liar.answers = [(404, {}, b""), (202, {"Location": location}, b"")]
    with pytest.raises(RegistryError):
        liar.client().put_blob(BLOB)


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("call", ["get_manifest", "put_manifest", "get_blob"])
def test_an_answer_without_an_end_is_not_read_into_memory(call: str, status: int, liar: Liar) -> None:
    liar.answers, liar.endless, liar.sent = [(status, {"Content-Type": "text/plain"}, b"")], True, 0
    try:
        with pytest.raises(RegistryError):
            CALLS[call](liar.client())
    finally:
        liar.endless = False
    assert liar.sent < 3 * DOCUMENT_BYTES
