"""Sending one blob, with breaks.

::

    POST uploads/ ──► PATCH the bytes ──► PUT ?digest=…        a small blob goes with the PUT alone
                         │ break: GET the upload ──► Range: 0-<last byte that arrived> ──► PATCH from there
                         └ the registry does not know: POST again, in pieces from then on
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx

from airflow_stepops.errors import DigestMismatchError, RegistryError
from airflow_stepops.images.registry.blobs import CHUNK, Blob
from airflow_stepops.images.registry.patience import Interrupted, Patience
from airflow_stepops.images.registry.session import RegistrySession

#: A blob, or the rest of one, up to this many bytes is sent with the request that ends the upload.
_WITH_END = 4 << 20
#: After a break that cost everything, pieces of this size are sent, so that the next one costs less.
_PIECE = 16 << 20


class BlobUpload:
    """One blob on its way to a repository.

    :param blobs: path of the repository's blobs: ``/v2/<name>/blobs``.
    """

    def __init__(self, session: RegistrySession, blobs: str, blob: Blob) -> None:
        self._session = session
        self._blobs = blobs
        self._blob = blob
        self._location: str | None = None
        self._offset = self._farthest = 0
        self._piece = blob.size
        self._patience = Patience()

    def run(self) -> None:
        """Send it.

        :raises DigestMismatchError: when the registry keeps receiving other bytes.
        :raises RegistryError: when the registry keeps failing, or refuses.
        """
        broken = False
        while True:
            try:
                if broken and self._location is not None:
                    self._ask()
                if self._location is None:
                    self._start()
                self._send()
                return
            except Interrupted as interruption:
                self._patience.wait(interruption)
                broken = True
                if self._arrived():
                    return

    def _start(self) -> None:
        response = self._session.send("POST", f"{self._blobs}/uploads/", expect=(201, 202))
        self._offset = 0
        self._follow(response)
        if self._location is None:
            raise RegistryError(f"{self._session.registry}: the upload at {self._blobs} has no Location.")

    def _ask(self) -> None:
        """Ask how much arrived; forget an upload that the registry cannot go on with."""
        assert self._location is not None
        try:
            response = self._session.send("GET", self._location, expect=(200, 202, 204))
        except RegistryError:
            self._restart()
            return
        last = response.headers.get("range", "").rpartition("-")[2]
        arrived = int(last) + 1 if re.fullmatch("[1-9][0-9]{0,17}", last) else 0
        if arrived > self._blob.size:
            self._restart()
            return
        self._offset = arrived
        self._follow(response)

    def _restart(self) -> None:
        self._location = None
        # Some registries take no pieces, so every other try is whole.
        self._piece = _PIECE if self._piece == self._blob.size else self._blob.size

    def _send(self) -> None:
        while self._blob.size - self._offset > _WITH_END:
            length = min(self._piece, self._blob.size - self._offset)
            headers = {"Content-Range": f"{self._offset}-{self._offset + length - 1}"}
            # Docker's own client names no range for a whole blob, and not every registry knows the header.
            response = self._request("PATCH", self._at(), length, headers if length < self._blob.size else {})
            self._offset += length
            self._follow(response)
            self._progressed()
        # Put on as text: what the registry wrote into its own query is not ours to encode anew.
        url = f"{self._at()}{'&' if '?' in self._at() else '?'}digest={self._blob.digest}"
        response = self._request("PUT", url, self._blob.size - self._offset, {})
        found = response.headers.get("docker-content-digest", self._blob.digest)
        if found != self._blob.digest:
            self._restart()
            raise Interrupted(self._mismatch(f"it has {found}"))

    def _request(self, method: str, url: str, length: int, headers: dict[str, str]) -> httpx.Response:
        headers |= {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
        body = _Slice(self._blob, self._offset, length)
        response = self._session.send_once(
            method, url, expect=(200, 201, 202, 204, 400, 404, 416), headers=headers, content=body
        )
        if response.status_code < 400:
            return response
        self._restart()
        if response.status_code == 400 and "DIGEST_INVALID" in response.text:
            raise Interrupted(self._mismatch("it received other bytes"))
        raise Interrupted(
            RegistryError(
                f"{self._session.registry}: the upload of {self._blob.digest} to {self._blobs} answers "
                f"{response.status_code}: {response.text[:200]}. Try again later."
            )
        )

    def _progressed(self) -> None:
        """Be patient anew, but not for bytes that arrived before: else a blob that always ends wrong never ends."""
        if self._offset > self._farthest:
            self._farthest = self._offset
            self._patience.progressed()

    def _mismatch(self, what: str) -> DigestMismatchError:
        return DigestMismatchError(
            f"{self._session.registry}: blob {self._blob.digest} of {self._blob.size} bytes did not arrive whole at "
            f"{self._blobs}: {what}. Something on the way changes bytes: check proxies, then try again."
        )

    def _arrived(self) -> bool:
        """Whether the blob is there after all: the answer may have been lost, not the request."""
        response = self._session.send("HEAD", f"{self._blobs}/{self._blob.digest}", expect=(200, 404))
        return response.status_code == 200

    def _follow(self, response: httpx.Response) -> None:
        location = response.headers.get("location")
        if location:
            try:
                self._location = str(response.request.url.join(location))
            except httpx.InvalidURL as error:
                raise RegistryError(f"{self._session.registry}: a Location that is no URL: {error}.") from error

    def _at(self) -> str:
        assert self._location is not None
        return self._location


class _Slice(httpx.SyncByteStream):
    """Some bytes of a blob, read anew each time that they are sent."""

    def __init__(self, blob: Blob, offset: int, length: int) -> None:
        self._blob = blob
        self._offset = offset
        self._length = length

    def __iter__(self) -> Iterator[bytes]:
        if not self._length:
            return
        with self._blob.open() as stream:
            skip, left = self._offset, self._length
            if stream.seekable():
                stream.seek(skip)
                skip = 0
            while skip and (chunk := stream.read(min(CHUNK, skip))):
                skip -= len(chunk)
            while left and (chunk := stream.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk
            if self._offset + self._length == self._blob.size:
                # To the end, where a stream that checks its digest does so.
                stream.read(1)
