"""The artifact store in a bucket of S3, Cloud Storage or Blob Storage, through obstore."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_stepops.artifacts.store import Backend
from airflow_stepops.artifacts.upload import Upload
from airflow_stepops.errors import ArtifactError, ArtifactExistsError, ArtifactNotFoundError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

#: How a job bears a store that is away for a while: hours of work may hang on it. A signed request is good for five
#: minutes, which is the most that can be asked for.
PATIENCE: RetryConfig = {
    "max_retries": 1000,
    "retry_timeout": timedelta(minutes=4),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
}

#: For one request and its whole answer; obstore sends again what took longer.
ANSWER_SECONDS = 30.0

_READ_BYTES = 16 * 1024 * 1024
#: Of a request to create an object that breaks before its answer comes.
_ATTEMPTS = 3
_LOST = re.compile(r"\bkind: (Interrupted|Timeout)\b")


def is_plain(endpoint: str | None) -> bool:
    """Whether an endpoint is spoken to without TLS."""
    return endpoint is not None and endpoint.startswith("http://")


def client_options(endpoint: str | None) -> ClientConfig:
    """Return how obstore calls a service.

    :param endpoint: its URL, or ``None`` for the usual one of the cloud.
    """
    return {
        "allow_http": is_plain(endpoint),
        "timeout": timedelta(seconds=ANSWER_SECONDS),
    }


class Bucket(Backend):
    """Objects as the service has them.

    :param root: URI of the bucket and the prefix of all keys.
    :param store: an open store at the root; default: opened by the environment when it is first needed.
    """

    def __init__(self, root: str, store: ObjectStore | None) -> None:
        self._root = root
        self._opened = store
        self._by_environment = store is None

    def get(self, key: str, uri: str) -> bytes:
        """Return the object's bytes."""
        import obstore

        with _errors(uri):
            return bytes(obstore.get(self._store, key).bytes())

    def put(self, key: str, uri: str, data: bytes) -> None:
        """Write the object."""
        import obstore

        with _write_errors(uri):
            obstore.put(self._store, key, data)

    def put_if_absent(self, key: str, uri: str, data: bytes) -> None:
        """Write the object on the condition that there is none.

        When the service did so and its answer was lost, it finds an object: its own.
        """
        import obstore
        from obstore.exceptions import GenericError

        with _write_errors(uri):
            for attempts_left in reversed(range(_ATTEMPTS)):
                try:
                    obstore.put(self._store, key, data, mode="create")
                    return
                except GenericError as error:
                    # obstore itself sends this again to S3 and Cloud Storage, but not to Blob Storage.
                    if not attempts_left or not _LOST.search(str(error)):
                        raise

    def size(self, key: str, uri: str) -> int:
        """Return the object's length."""
        import obstore

        with _errors(uri):
            return int(obstore.head(self._store, key)["size"])

    def list(self, folder: str, uri: str) -> dict[str, float]:
        """Return the keys below with their times, which are whole seconds in S3."""
        import obstore

        with _errors(uri):
            pages = obstore.list(self._store, prefix=folder or None)
            return {entry["path"]: entry["last_modified"].timestamp() for page in pages for entry in page}

    def delete(self, key: str, uri: str) -> None:
        """Delete the object."""
        import obstore

        with _errors(uri):
            try:
                obstore.delete(self._for_deleting(), key)
            except FileNotFoundError:
                return

    @contextmanager
    def reader(self, key: str, uri: str) -> Iterator[BinaryIO]:
        """Read the object range by range."""
        import obstore

        with _errors(uri):
            file = obstore.open_reader(self._store, key, buffer_size=_READ_BYTES)
        yield cast("BinaryIO", _Download(cast("BinaryIO", file), uri))

    @contextmanager
    def writer(self, key: str, uri: str) -> Iterator[BinaryIO]:
        """Send the object part by part while it is written."""
        with _write_errors(uri):
            upload = Upload(self._store, key)
        try:
            yield cast("BinaryIO", upload)
        except BaseException:
            upload.abandon()
            if upload.error is not None:
                with _write_errors(uri):
                    raise upload.error from None
            raise
        with _write_errors(uri):
            upload.finish()

    def _for_deleting(self) -> ObjectStore:
        from airflow_stepops.artifacts.blob_storage import is_container, open_for_deleting

        if self._by_environment and is_container(self._root):
            return open_for_deleting(self._root, PATIENCE) or self._store
        return self._store

    @property
    def _store(self) -> ObjectStore:
        if self._opened is None:
            from obstore.store import from_url

            from airflow_stepops.artifacts.blob_storage import is_container, open_container

            self._opened = (
                open_container(self._root, PATIENCE)
                if is_container(self._root)
                else from_url(self._root, retry_config=PATIENCE)
            )
        return self._opened


class _Download:
    """A read-only binary file whose errors name the object."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._file = file
        self._uri = uri

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most ``size`` of them unless it is negative."""
        with _errors(self._uri):
            return bytes(self._file.read(size) if size >= 0 else self._file.read())


@contextmanager
def _write_errors(uri: str) -> Iterator[None]:
    try:
        with _errors(uri):
            yield
    except ArtifactNotFoundError as error:
        raise ArtifactError(f"{uri}: the bucket does not exist, or cannot be seen from here") from error


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    from obstore import exceptions

    try:
        yield
    except (FileNotFoundError, exceptions.NotFoundError) as error:
        raise ArtifactNotFoundError(f"there is nothing at {uri}") from error
    except (FileExistsError, exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise ArtifactExistsError(f"there is something at {uri} already") from error
    except (exceptions.BaseError, OSError) as error:
        raise ArtifactError(f"{uri}: {str(error).splitlines()[0]}") from error
