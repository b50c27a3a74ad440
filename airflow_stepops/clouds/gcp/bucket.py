"""A bucket of Cloud Storage as obstore opens it: with tokens of a connection, here; with variables, in a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_stepops.clouds.gcp.connection import account
from airflow_stepops.errors import ArtifactError, JobRefusedError, TransientServiceError

if TYPE_CHECKING:
    from obstore.store import GCSConfig, GCSCredential, GCSStore

_GOOGLE = "https://storage.googleapis.com"


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

        endpoint = self._endpoint()
        config: GCSConfig = {} if endpoint is None else {"base_url": endpoint}
        return GCSStore(
            self.name,
            prefix=prefix or None,
            config=config,
            client_options={"allow_http": _is_plain(endpoint)},
            credential_provider=self._credential,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that make obstore open the bucket in the same way, without credentials.

        In a job obstore finds those by itself: the metadata server gives tokens of the job's service account.
        """
        endpoint = self._endpoint()
        found = {} if endpoint is None else {"GOOGLE_BASE_URL": endpoint}
        return {**found, "GOOGLE_ALLOW_HTTP": "true"} if _is_plain(endpoint) else found

    def _credential(self) -> GCSCredential:
        try:
            token, ends = account(self.connection).credential()
        except (TransientServiceError, JobRefusedError) as error:
            raise ArtifactError(f"bucket {self.name!r}: {error}") from error
        return {"token": token, "expires_at": ends}

    def _endpoint(self) -> str | None:
        """Return where Cloud Storage is, ``None`` for where it usually is."""
        try:
            found = (self.endpoint or account(self.connection).endpoint("storage")).rstrip("/")
        except (TransientServiceError, JobRefusedError) as error:
            raise ArtifactError(f"bucket {self.name!r}: {error}") from error
        return None if found == _GOOGLE else found


def _is_plain(endpoint: str | None) -> bool:
    return endpoint is not None and endpoint.startswith("http://")
