"""A repository of Artifact Registry: the protocol of all registries, logins that end, and repositories to make first.

The hosts of gcr.io are Artifact Registry's too.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_stepops.clouds.gcp.connection import Account, account
from airflow_stepops.clouds.gcp.failures import RefusedCallError
from airflow_stepops.errors import EndKind, JobRefusedError, RegistryAuthError, RegistryError, TransientServiceError
from airflow_stepops.images.registry.auth import Credentials, RenewableCredentials
from airflow_stepops.images.registry.blobs import Blob
from airflow_stepops.images.registry.client import RegistryClient
from airflow_stepops.jobs.patience import patiently

_USER = "oauth2accesstoken"
#: Registries that take access tokens; the mirror of Docker Hub is for anybody.
_OF_GOOGLE = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev|(?!mirror\.)(?:[a-z0-9-]+\.)?gcr\.io")
_API = "artifactregistry"
_SECONDS_BETWEEN_LOOKS = 0.5
_LOOKS = 120


class GoogleLogin(RenewableCredentials):
    """The login of a connection: its access token. It opens every registry that the connection may use.

    :param connection: id of an Airflow connection of type ``google_cloud_platform``, or ``None`` for the default one.
    """

    def __init__(self, connection: str | None) -> None:
        self._connection = connection
        self._given = ""

    def __call__(self) -> tuple[str, str]:
        """Return name and password: the same ones until shortly before they expire.

        :raises RegistryError: or RegistryAuthError, if Google gives none.
        """
        from airflow.sdk.log import mask_secret

        with registry_errors():
            token = account(self._connection).token()
        if token != self._given:
            mask_secret(token)
            self._given = token
        return _USER, token

    def renew(self) -> None:
        """Ask for another next time."""
        with registry_errors():
            account(self._connection).forget(self._given)


@dataclass(frozen=True)
class NewRepository:
    """A repository that is made when it is missing.

    :param project: id of the project.
    :param location: region or multi-region, such as ``europe-west4`` or ``europe``.
    :param name: of the repository.
    :param connection: id of an Airflow connection of type ``google_cloud_platform``, or ``None`` for the default one.
    :param create: whether it is made; else it is only said how.
    """

    project: str
    location: str
    name: str
    connection: str | None
    create: bool

    def make(self) -> None:
        """Make it unless it is there; another worker may do so just now.

        :raises RegistryError: or RegistryAuthError, if Google refuses.
        """
        if not self.is_missing():
            return
        if not self.create:
            raise RegistryError(
                f"Artifact Registry has no repository {self.name!r} in {self.location} of project {self.project!r}:"
                f" make it, with 'gcloud artifacts repositories create {self.name} --repository-format=docker "
                f"--location={self.location} --project={self.project}', or set 'create_repository: true' for the "
                "registry."
            )
        with registry_errors():
            self._create(account(self.connection))

    def is_missing(self) -> bool:
        """Return whether Google says that there is no such repository.

        :raises RegistryError: if Google does not say.
        """
        with registry_errors():
            opened = account(self.connection)
            try:
                patiently(opened.call)("GET", f"{self._parent(opened)}/{self.name}")
            except RefusedCallError as error:
                # Who may push need not be allowed to ask: then the registry says what is wrong, if anything is.
                if error.kind is not EndKind.PERMISSION and not error.is_not_found:
                    raise
                return error.is_not_found
        return False

    def _create(self, opened: Account) -> None:
        try:
            operation = patiently(opened.call)(
                "POST",
                self._parent(opened),
                params={"repositoryId": self.name},
                json={"format": "DOCKER", "description": "Images of steps of Airflow DAGs"},
            )
        except RefusedCallError as error:
            if error.is_there_already:
                return
            raise
        for _ in range(_LOOKS):
            if operation.get("done"):
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            operation = patiently(opened.call)("GET", f"{opened.endpoint(_API)}/v1/{operation['name']}")
        if not operation.get("done") or "error" in operation:
            said = operation.get("error", {}).get("message", "it takes too long")
            raise RegistryError(f"Artifact Registry did not make repository {self.name!r}: {said}. Try again later.")

    def _parent(self, opened: Account) -> str:
        return f"{opened.endpoint(_API)}/v1/projects/{self.project}/locations/{self.location}/repositories"


class GoogleRepository(RegistryClient):
    """One repository of images in Artifact Registry.

    :param name: ``host/path``.
    :param new: how what holds it is made when it is missing, ``None`` to leave that to the registry.
    """

    def __init__(self, name: str, *, credentials: GoogleLogin, new: NewRepository | None) -> None:
        super().__init__(name, credentials=credentials)
        self._login = credentials
        self._new = new
        self._making = threading.Lock()

    def login_for(self, registry: str) -> Credentials | None:
        """Return the same login for whatever registry of Google's, of other projects and regions too."""
        return self._login if _OF_GOOGLE.fullmatch(registry) else super().login_for(registry)

    def head_manifest(self, reference: str) -> str | None:
        """Return the digest of a manifest, ``None`` when there is none."""
        try:
            return super().head_manifest(reference)
        except RegistryAuthError:
            # Of a repository that is missing Google may say just that it is denied "(or it may not exist)".
            if self._new is None or not self._new.is_missing():
                raise
            return None

    def put_blob(self, blob: Blob) -> int:
        """Send a blob unless it is there, and return the number of bytes that were sent."""
        self._make()
        return super().put_blob(blob)

    def mount_blob(self, digest: str, from_repository: str) -> bool:
        """Make a blob of another repository of the registry appear here, ``False`` when it does not do that."""
        self._make()
        return super().mount_blob(digest, from_repository)

    def _put_checked(self, reference: str, media_type: str, data: bytes, digest: str) -> None:
        self._make()
        try:
            super()._put_checked(reference, media_type, data, digest)
        except RegistryError:
            # What is there already is refused where tags are immutable: another worker was first with the same image.
            if self.head_manifest(reference) != digest:
                raise

    def _make(self) -> None:
        """Make the repository before the first write when it is missing."""
        with self._making:
            if self._new is not None:
                self._new.make()
                self._new = None


@contextmanager
def registry_errors() -> Iterator[None]:
    """Turn errors of Google's APIs in the block into those of registries."""
    try:
        yield
    except TransientServiceError as error:
        raise RegistryError(f"{error}. Try again later.") from error
    except JobRefusedError as error:
        kind = RegistryAuthError if error.kind is EndKind.PERMISSION else RegistryError
        raise kind(str(error)) from error
