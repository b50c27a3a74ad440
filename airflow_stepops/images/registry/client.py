"""A repository of any registry that speaks the OCI distribution API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

import httpx

from airflow_stepops.errors import DigestMismatchError, RegistryError
from airflow_stepops.images.manifests import ACCEPT
from airflow_stepops.images.names import ImageName
from airflow_stepops.images.registry.auth import Credentials
from airflow_stepops.images.registry.blobs import CHUNK, Blob, check_digest, digest_of, is_digest, verified
from airflow_stepops.images.registry.patience import Interrupted, Patience
from airflow_stepops.images.registry.repository import ImageRepository
from airflow_stepops.images.registry.session import RegistrySession
from airflow_stepops.images.registry.upload import BlobUpload


class RegistryClient(ImageRepository):
    """One repository of a registry, over HTTP.

    :param name: ``host[:port]/path``.
    :param credentials: returns name and password when they are needed, ``None`` for an anonymous user.
    :param insecure: speak plain HTTP, which is always done with this machine itself.
    :param push: whether to log in for writing too.
    """

    def __init__(
        self, name: str, *, credentials: Credentials | None = None, insecure: bool = False, push: bool = True
    ) -> None:
        parsed = ImageName.parse(name)
        self._registry, self._path = parsed.registry, parsed.path
        self._credentials = credentials
        self._insecure = insecure
        scope = f"repository:{self._path}:{'pull,push' if push else 'pull'}"
        self._session = RegistrySession(self._registry, scope, credentials, insecure)
        self._root = f"/v2/{self._path}"

    def sibling(self, path: str) -> RegistryClient:
        """Return another repository of the same registry, to read with the same login."""
        return RegistryClient(
            f"{self._registry}/{path}", credentials=self._credentials, insecure=self._insecure, push=False
        )

    def login_for(self, registry: str) -> Credentials | None:
        """Return what opens another registry, to read a base there; ``None`` for an anonymous user."""
        return self._credentials if registry == self._registry else None

    @property
    def registry(self) -> str:
        """Host, with its port where it has one."""
        return self._registry

    @property
    def path(self) -> str:
        """Name of the repository in the registry."""
        return self._path

    @property
    def requests(self) -> int:
        """Number of requests made so far, tokens and redirects included."""
        return self._session.requests

    def reference(self, digest: str) -> str:
        """Return ``host/path@sha256:…``."""
        return f"{self.name}@{digest}"

    def login(self) -> tuple[str, str] | None:
        """Return name and password, when the repository was opened with credentials."""
        return self._credentials() if self._credentials is not None else None

    def has_blob(self, digest: str) -> bool:
        """Return whether the blob is there."""
        response = self._session.send("HEAD", f"{self._root}/blobs/{digest}", expect=(200, 404))
        return response.status_code == 200

    def put_blob(self, blob: Blob) -> int:
        """Send a blob unless it is there, and return the number of bytes that were sent."""
        if self.has_blob(blob.digest):
            return 0
        BlobUpload(self._session, f"{self._root}/blobs", blob).run()
        return blob.size

    def get_blob(self, digest: str) -> AbstractContextManager[BinaryIO]:
        """Open a blob; reading to its end raises DigestMismatchError when the bytes are wrong."""
        return verified(self._download(digest), digest, f"blob of {self.name}")

    def _download(self, digest: str) -> Iterator[bytes]:
        url, offset, patience = f"{self._root}/blobs/{digest}", 0, Patience()
        while True:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            try:
                with self._session.stream("GET", url, expect=(200, 206), headers=headers) as response:
                    skip = offset if response.status_code == 200 else 0
                    for chunk in response.iter_raw(CHUNK):
                        fresh = chunk[skip:]
                        skip -= len(chunk) - len(fresh)
                        offset += len(fresh)
                        if fresh:
                            yield fresh
                            patience.progressed()
                return
            except Interrupted as interruption:
                patience.wait(interruption)

    def mount_blob(self, digest: str, from_repository: str) -> bool:
        """Make a blob of another repository of the registry appear here, ``False`` when it does not do that."""
        url = httpx.URL(f"{self._root}/blobs/uploads/", params={"mount": digest, "from": from_repository})
        try:
            response = self._session.send(
                "POST", str(url), expect=(201, 202), scopes=(f"repository:{from_repository}:pull",)
            )
        except RegistryError:
            # Not allowed, not known, switched off: copying either works or says what is really wrong.
            return False
        return response.status_code == 201

    def head_manifest(self, reference: str) -> str | None:
        """Return the digest of a manifest by its tag or digest, ``None`` when there is none. One request."""
        response = self._session.send("HEAD", self._manifest(reference), expect=(200, 404), headers={"Accept": ACCEPT})
        if response.status_code == 404:
            return None
        digest = response.headers.get("docker-content-digest", "")
        # Not every registry says the digest here.
        return digest if is_digest(digest) else digest_of(self.get_manifest(reference)[1])

    def get_manifest(self, reference: str) -> tuple[str, bytes]:
        """Return media type and bytes of a manifest by its tag or digest.

        :raises DigestMismatchError: if the bytes are not those of the digest asked for or announced.
        """
        response = self._session.send("GET", self._manifest(reference), expect=(200,), headers={"Accept": ACCEPT})
        announced = response.headers.get("docker-content-digest", "")
        expected = reference if is_digest(reference) else announced
        if is_digest(expected):
            check_digest(digest_of(response.content), expected, f"manifest {reference} of {self.name}")
        return response.headers.get("content-type", "").partition(";")[0].strip(), response.content

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> str:
        """Store a manifest under a tag or its digest, and return its digest. Its blobs must be there already.

        :raises DigestMismatchError: when the registry keeps receiving other bytes.
        """
        digest = digest_of(data)
        # By its digest first: then the registry itself refuses damaged bytes, before a tag points to them.
        self._put_checked(digest, media_type, data, digest)
        if reference != digest:
            self._put_checked(reference, media_type, data, digest)
        return digest

    def _put_checked(self, reference: str, media_type: str, data: bytes, digest: str) -> None:
        patience, headers = Patience(), {"Content-Type": media_type}
        while True:
            response = self._session.send(
                "PUT", self._manifest(reference), expect=(200, 201, 202, 204, 400), headers=headers, content=data
            )
            found = response.headers.get("docker-content-digest", digest)
            if response.status_code == 400:
                # Damaged on the way, or blobs that this registry does not see yet: another worker is just putting them.
                failure = self._session.refused(response)
                if "TAG_INVALID" in response.text:  # the tag names another image, and nobody may change that
                    raise failure
            elif found != digest:
                failure = DigestMismatchError(
                    f"{self.name}: manifest {reference} was sent as {digest} and arrived as {found}. Something on the "
                    "way changes bytes: check proxies, then try again."
                )
            else:
                return
            patience.wait(failure if isinstance(failure, Interrupted) else Interrupted(failure))

    def _manifest(self, reference: str) -> str:
        return f"{self._root}/manifests/{reference}"
