"""A bucket of S3 as obstore opens it: with keys of boto3, here; with variables, in a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from airflow_stepops.artifacts.bucket import client_options, is_plain
from airflow_stepops.clouds.aws.connection import account, failing
from airflow_stepops.errors import ArtifactError

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential, S3Store

    from airflow_stepops.clouds.aws.failures import Failure

#: boto3 renews keys ten minutes before they end, so that is how long those that it gives are good for.
_LIFETIME = timedelta(minutes=10)
#: Of the signature, where nobody says a region: S3-compatible stores rarely have any.
_NO_REGION = "us-east-1"


@dataclass(frozen=True)
class S3Bucket:
    """A bucket, and how to get there.

    :param connection: id of an Airflow connection of type ``aws``, or ``None`` for the default one.
    :param region: of the bucket, or ``None`` to ask the bucket.
    :param endpoint: URL of an S3-compatible store, or ``None`` for what the connection says.
    :param kms_key: to encrypt with, or ``None`` for what the bucket is set to.
    """

    name: str
    connection: str | None
    region: str | None
    endpoint: str | None
    kms_key: str | None

    def store(self, prefix: str) -> S3Store:
        """Open a folder of the bucket.

        :raises ArtifactError: if the region is not given and the bucket does not tell it.
        """
        from obstore.store import S3Store

        config: S3Config = {"region": self.found_region()}
        endpoint = self._endpoint()
        if endpoint:
            config["endpoint"] = endpoint
        if self.kms_key:
            config |= {"server_side_encryption": "aws:kms", "sse_kms_key_id": self.kms_key}
        return S3Store(
            self.name,
            prefix=prefix or None,
            config=config,
            client_options=client_options(endpoint),
            credential_provider=self._credential,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that make obstore open the bucket in the same way, without credentials."""
        found = {"AWS_REGION": self.found_region()}
        endpoint = self._endpoint()
        if endpoint:
            found["AWS_ENDPOINT"] = endpoint
        if is_plain(endpoint):
            found["AWS_ALLOW_HTTP"] = "true"
        if self.kms_key:
            found |= {"AWS_SERVER_SIDE_ENCRYPTION": "aws:kms", "AWS_SSE_KMS_KEY_ID": self.kms_key}
        return found

    def _credential(self) -> S3Credential:
        with failing(self._error):
            keys = account(self.connection, self.region).credentials()
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + _LIFETIME,
        }

    def _endpoint(self) -> str | None:
        return (self.endpoint or account(self.connection, self.region).endpoint("s3") or "").rstrip("/") or None

    def found_region(self) -> str:
        """Return the region: the one that is given, or what the bucket says."""
        return self.region or _region_of(self)

    def _error(self, failure: Failure) -> ArtifactError:
        return ArtifactError(f"bucket {self.name!r}: {failure.message}")


@cache
def _region_of(bucket: S3Bucket) -> str:
    """Ask a bucket where it is; who may not read it is told all the same."""
    from botocore.exceptions import ClientError

    with failing(bucket._error):
        opened = account(bucket.connection)
        try:
            answer = opened.new_client("s3", bucket._endpoint()).head_bucket(Bucket=bucket.name)
        except ClientError as error:
            answer = error.response
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404:
                raise ArtifactError(f"bucket {bucket.name!r} does not exist: make it, or correct its name.") from error
            if status != 403 and not _told(answer):
                raise
    return _told(answer) or opened.region or _NO_REGION


def _told(answer: dict[str, dict[str, dict[str, str]]]) -> str:
    return answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", "")
