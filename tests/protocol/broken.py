"""The protocol with a mistake in it, which the exploration must find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from airflow_stepops.errors import ArtifactNotFoundError
from airflow_stepops.jobs.ledger import Ledger


@contextmanager
def claims_without_put_if_absent() -> Iterator[None]:
    """Let a claim be looked for and then written, which two processes may do at the same time."""
    with mock.patch.object(Ledger, "_claimed_by", _claimed_by):
        yield


def _claimed_by(self: Ledger, directory: str, owner: str) -> str:
    uri = f"{directory}/claim.json"
    try:
        return self._store.get(uri).decode()
    except ArtifactNotFoundError:
        self._store.put(uri, owner.encode())
        return owner
