"""A bucket of Cloud Storage as obstore opens it: with tokens of a connection, here; with variables, in a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_stepops.artifacts.bucket import client_options, is_plain
from airflow_stepops.clouds.gcp.connection import Account, account
from airflow_stepops.errors import ArtifactError, JobRefusedError, TransientServiceError

if TYPE_CHECKING:
    from obstore.store import GCSConfig, GCSCredential, GCSStore

_GOOGLE = "https://storage.googleapis.com"
#: In a token's place for emulators, which do not look at it: obstore writes with some token only.
_ANYBODY = "anonymous"


@dataclass(frozen=True)
class GcsBucket:
    """A bucket, and how to get there.

    :param connection: id of an Airflow connection of type ``google_cloud_platform``, or ``None`` for the default one.
    :param endpoint: URL of an emulator, or ``None`` for what the connection says.
    """

    name: str
    connection: str | None
    endpoint: str | None

    def store(self, prefix: str) -> GCSStore:
        """Open a folder of the bucket.

        :raises StackError: if there is no such connection.
        :raises ArtifactError: if there are no credentials.
        """
        from obstore.store import GCSStore

        opened = self._account()
        endpoint = self._endpoint(opened)
        config: GCSConfig = {} if endpoint is None else {"base_url": endpoint}
        if opened.is_anonymous:
            config["bearer_token"] = _ANYBODY
        return GCSStore(
            self.name,
            prefix=prefix or None,
            config=config,
            client_options=client_options(endpoint),
            credential_provider=None if opened.is_anonymous else self._credential,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that make obstore open the bucket in the same way, without credentials.

        In a job obstore finds those by itself: the metadata server gives tokens of the job's service account.
        """
        opened = self._account()
        endpoint = self._endpoint(opened)
        found = {} if endpoint is None else {"GOOGLE_BASE_URL": endpoint}
        if is_plain(endpoint):
            found["GOOGLE_ALLOW_HTTP"] = "true"
        if opened.is_anonymous:
            found["GOOGLE_BEARER_TOKEN"] = _ANYBODY
        return found

    def _credential(self) -> GCSCredential:
        with self._errors():
            token, ends = account(self.connection).credential()
        return {"token": token, "expires_at": ends}

    def _account(self) -> Account:
        with self._errors():
            return account(self.connection)

    def _endpoint(self, opened: Account) -> str | None:
        """Return where Cloud Storage is, ``None`` for where it usually is."""
        found = (self.endpoint or opened.endpoint("storage")).rstrip("/")
        return None if found == _GOOGLE else found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (TransientServiceError, JobRefusedError) as error:
            raise ArtifactError(f"bucket {self.name!r}: {error}") from error
