"""A repository of ECR: the protocol of all registries, logins that end, and repositories that have to be made first."""

from __future__ import annotations

import base64
import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from airflow_stepops.clouds.aws.connection import client, failing
from airflow_stepops.clouds.aws.container_registry import ECR_HOST
from airflow_stepops.clouds.aws.failures import Failure
from airflow_stepops.errors import EndKind, RegistryAuthError, RegistryError
from airflow_stepops.images.registry.auth import Credentials, RenewableCredentials
from airflow_stepops.images.registry.blobs import Blob
from airflow_stepops.images.registry.client import RegistryClient

#: A login is not given to new work so shortly before its end.
_MARGIN_SECONDS = 15 * 60.0
#: Of a tag that no image has: asking for it tells whether there is a repository.
_NO_TAG = "stepops-none"


class EcrLogin(RenewableCredentials):
    """The login of a connection in a region. It opens every registry that the connection may use.

    :param connection: id of an Airflow connection of type ``aws``, or ``None`` for the default one.
    :param region: AWS region; ``None`` for the connection's.
    """

    def __init__(self, connection: str | None, region: str | None) -> None:
        self._connection = connection
        self._region = region
        self._pair: tuple[str, str] = ("", "")
        self._good_until = 0.0

    def __call__(self) -> tuple[str, str]:
        """Return name and password: the same ones until shortly before they expire.

        :raises RegistryError: or RegistryAuthError, if ECR gives none.
        """
        if self._good_until <= time.time():
            self._pair, self._good_until = self._fetch()
        return self._pair

    def renew(self) -> None:
        """Ask for others next time."""
        self._good_until = 0.0

    def _fetch(self) -> tuple[tuple[str, str], float]:
        from airflow.sdk.log import mask_secret

        with failing(_registry_error):
            answer = client("ecr", self._connection, self._region).get_authorization_token()
        found = answer["authorizationData"][0]
        name, _, password = base64.b64decode(found["authorizationToken"]).decode().partition(":")
        mask_secret(password)
        return (name, password), found["expiresAt"].timestamp() - _MARGIN_SECONDS


@cache
def login_of(connection: str | None, region: str | None) -> EcrLogin:
    """Return the login of a connection in a region, the same one for all that is opened in this process."""
    return EcrLogin(connection, region)


@dataclass(frozen=True)
class NewRepository:
    """A repository that is made when it is missing.

    :param name: of the repository in its registry.
    :param account: id of the account whose registry it is, ``None`` for the connection's.
    :param connection: id of an Airflow connection of type ``aws``, or ``None`` for the default one.
    :param region: AWS region; ``None`` for the connection's.
    """

    name: str
    account: str | None
    connection: str | None
    region: str | None
    scan_on_push: bool
    immutable_tags: bool
    kms_key: str | None

    def create(self) -> None:
        """Make it; another worker may have done so just now.

        :raises RegistryError: or RegistryAuthError, if ECR refuses.
        """
        with failing(_registry_error):
            ecr = client("ecr", self.connection, self.region)
            try:
                ecr.create_repository(**self._request())
            except ecr.exceptions.RepositoryAlreadyExistsException:
                return

    def _request(self) -> dict[str, Any]:
        request: dict[str, Any] = {"repositoryName": self.name}
        if self.account:
            request["registryId"] = self.account
        if self.scan_on_push:
            request["imageScanningConfiguration"] = {"scanOnPush": True}
        if self.immutable_tags:
            request["imageTagMutability"] = "IMMUTABLE"
        if self.kms_key:
            request["encryptionConfiguration"] = {"encryptionType": "KMS", "kmsKey": self.kms_key}
        return request


class EcrRepository(RegistryClient):
    """One repository of ECR.

    :param name: ``host/path``.
    :param connection: id of an Airflow connection of type ``aws``, or ``None`` for the default one.
    :param region: AWS region; ``None`` for the connection's.
    :param new: how it is made when it is missing, ``None`` to leave that to people.
    """

    def __init__(self, name: str, connection: str | None, region: str | None, *, new: NewRepository | None) -> None:
        super().__init__(name, credentials=login_of(connection, region))
        self._connection = connection
        self.new = new
        self._is_made = False
        self._making = threading.Lock()

    def login_for(self, registry: str) -> Credentials | None:
        """Return a login of the same connection for whatever registry of ECR, such as those of AWS's own images."""
        found = ECR_HOST.fullmatch(registry)
        return login_of(self._connection, found["region"]) if found else super().login_for(registry)

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
            # ECR refuses what is there already where tags are immutable: another worker was first with the same image.
            if self.head_manifest(reference) != digest:
                raise

    def _make(self) -> None:
        """Make the repository before the first write when it is missing."""
        with self._making:
            if not self._is_made and self._is_missing():
                if self.new is None:
                    raise RegistryError(
                        f"{self.registry} has no repository {self.path!r}: make it, with 'aws ecr create-repository "
                        f"--repository-name {self.path}', or set 'create_repository: true' for the registry."
                    )
                self.new.create()
            self._is_made = True

    def _is_missing(self) -> bool:
        # Not by a first upload: ECR may just hang up on that. And this needs no permission that a push does not need.
        response = self._session.send("GET", self._manifest(_NO_TAG), expect=(200, 404))
        return response.status_code == 404 and "NAME_UNKNOWN" in response.text


def _registry_error(failure: Failure) -> RegistryError:
    if failure.kind is EndKind.PERMISSION:
        return RegistryAuthError(failure.message)
    return RegistryError(failure.message if failure.kind else f"{failure.message}. Try again later.")
