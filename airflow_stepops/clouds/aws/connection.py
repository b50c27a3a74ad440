"""Sessions and clients of boto3, opened the way an Airflow connection of type ``aws`` says.

What a connection opens is kept for a quarter of an hour in each process: after that a changed connection is noticed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_stepops.errors import JobRefusedError, StackError, TransientServiceError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    from botocore.config import Config
    from botocore.credentials import ReadOnlyCredentials

    from airflow_stepops.clouds.aws.failures import Failure

_DEFAULT_CONNECTION = "aws_default"
#: For each wait of a call, unless the connection says another ``read_timeout``.
ANSWER_SECONDS = 30.0
_KEPT_SECONDS = 15 * 60.0


class Account:
    """What one connection opens. Safe to use from several threads.

    :param connection: id of an Airflow connection of type ``aws``; ``None`` for ``aws_default`` where there is one, and
        else what boto3 finds by itself: variables, profile, role of the machine.
    :param region: AWS region; ``None`` for the connection's.
    :raises StackError: if there is no such connection, or Airflow's Amazon provider is not installed.
    """

    def __init__(self, connection: str | None, region: str | None) -> None:
        self._hook = _hook(connection, region)
        self._session = self._hook.get_session()
        self._clients: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._made_at = time.monotonic()

    @property
    def is_recent(self) -> bool:
        """Whether the connection was read a short time ago."""
        return time.monotonic() - self._made_at < _KEPT_SECONDS

    @property
    def region(self) -> str | None:
        """Region of the session: the one asked for, the connection's, or that of boto3's own configuration."""
        region: str | None = self._session.region_name
        return region

    def endpoint(self, service: str) -> str | None:
        """Return the URL at which the connection says a service is, ``None`` for AWS itself."""
        return self._hook.conn_config.get_service_endpoint_url(service)

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service, the same one each time."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self.new_client(service, self.endpoint(service))
            return self._clients[service]

    def new_client(self, service: str, endpoint: str | None) -> Any:
        """Return a new client of a service at another place than the connection says."""
        config = _config(self._hook.conn_config.botocore_config)
        # boto3 sessions make one client at a time.
        with self._lock:
            return self._session.client(service, endpoint_url=endpoint, config=config, verify=self._hook.verify)

    def credentials(self) -> ReadOnlyCredentials:
        """Return keys that are good for ten more minutes at least, unless the connection itself holds older ones.

        :raises NoCredentialsError: if there are none.
        """
        from botocore.exceptions import NoCredentialsError

        with self._lock:
            found = self._session.get_credentials()
        if found is None:
            raise NoCredentialsError
        return found.get_frozen_credentials()


#: By process, since connections that are open do not outlive a fork.
_accounts: dict[tuple[int, str | None, str | None], Account] = {}


def account(connection: str | None = None, region: str | None = None) -> Account:
    """Return what a connection opens; see :class:`Account`.

    :raises StackError: if there is no such connection, or Airflow's Amazon provider is not installed.
    """
    # Without a lock: who waits for one could be the event loop that reading a connection needs.
    key = (os.getpid(), connection, region)
    found = _accounts.get(key)
    if found is None or not found.is_recent:
        try:
            found = _accounts[key] = Account(connection, region)
        except StackError:
            raise
        except Exception:
            # An Airflow or a token service that is away for a moment costs nobody a session that still works.
            if found is None:
                raise
    return found


def client(service: str, connection: str | None = None, region: str | None = None) -> Any:
    """Return the boto3 client of a service, such as ``"sagemaker"``.

    :param connection: id of an Airflow connection of type ``aws``; see :class:`Account`.
    :param region: AWS region; ``None`` for the connection's.
    :raises StackError: if there is no such connection, or Airflow's Amazon provider is not installed.
    """
    return account(connection, region).client(service)


@contextmanager
def failing(make: Callable[[Failure], Exception]) -> Iterator[None]:
    """Turn what boto3 raises in the block into an error of ours.

    :param make: returns the error to raise.
    """
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
    except ImportError as error:
        raise _not_installed(error) from error
    from airflow_stepops.clouds.aws.failures import read_failure

    try:
        yield
    except (BotoCoreError, ClientError, ResponseParserError) as error:
        failure = read_failure(error)
        if failure.expired:
            # The connection is read anew for the next try.
            _accounts.clear()
        raise make(failure) from error


def passing() -> AbstractContextManager[None]:
    """Turn what boto3 raises in the block into errors of job services.

    :raises TransientServiceError: for what may pass by itself: throttling, 5xx, connections, credentials that expired.
    :raises JobRefusedError: for all else, with its kind of end.
    """
    return failing(_job_error)


def _job_error(failure: Failure) -> Exception:
    if failure.kind is None:
        return TransientServiceError(failure.message)
    return JobRefusedError(failure.message, failure.kind)


def _hook(connection: str | None, region: str | None) -> AwsBaseHook:
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    except ImportError as error:
        raise _not_installed(error) from error
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
    from airflow.sdk import BaseHook

    # The hook itself would go on without a connection that is missing, as whoever the machine is.
    try:
        BaseHook.get_connection(connection or _DEFAULT_CONNECTION)
    except AirflowNotFoundException as error:
        if connection is None:
            return AwsBaseHook(aws_conn_id=None, region_name=region)
        raise StackError(
            f"there is no Airflow connection {connection!r}: add it, of type aws, or leave 'connection' out to use "
            f"{_DEFAULT_CONNECTION!r} or what boto3 finds by itself."
        ) from error
    return AwsBaseHook(aws_conn_id=connection or _DEFAULT_CONNECTION, region_name=region)


def _config(of_connection: Config | None) -> Config:
    """Return how clients behave; what the connection says of it goes first."""
    from botocore.config import Config

    from airflow_stepops import __version__

    ours = Config(
        connect_timeout=5,
        read_timeout=ANSWER_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 3},
        user_agent_extra=f"airflow-stepops/{__version__}",
    )
    return ours if of_connection is None else ours.merge(of_connection)


def _not_installed(error: ImportError) -> StackError:
    return StackError(f"this needs Airflow's Amazon provider ({error}): pip install 'airflow-stepops[amazon]'.")
