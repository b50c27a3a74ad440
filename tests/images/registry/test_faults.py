"""A registry that breaks in the middle: the end is a correct image or a clear error, never a broken tag."""

from __future__ import annotations

import os
import time

import pytest

from airflow_stepops.errors import DigestMismatchError, RegistryError
from airflow_stepops.images.registry.blobs import BytesBlob
from airflow_stepops.images.registry.client import RegistryClient
from tests.images.conftest import push_config
from tests.images.faults import FaultyProxy

SMALL = BytesBlob.of(os.urandom(300_000))
BIG = BytesBlob.of(os.urandom(24 << 20))
FOREVER = 1000


@pytest.fixture
def client(proxy: FaultyProxy, repository: RegistryClient) -> RegistryClient:
    """The repository, through the proxy."""
    return RegistryClient(f"{proxy.host}/{repository.path}")


def content(repository: RegistryClient, blob: BytesBlob) -> bytes:
    with repository.get_blob(blob.digest) as stream:
        return stream.read()


@pytest.mark.parametrize("blob", [SMALL, BIG], ids=["small", "big"])
@pytest.mark.parametrize(
    ("kind", "method"),
    [("reset", "HEAD"), ("status", "HEAD"), ("reset", "POST"), ("status", "POST"), ("lose_answer", "POST"),
     ("reset", "PUT"), ("status", "PUT"), ("cut_request", "PUT"), ("damage_request", "PUT"), ("lose_answer", "PUT"),
     ("fail_after", "PUT"), ("cut_answer", "PUT")],
)  # fmt: skip
def test_an_upload_that_breaks_once_arrives_whole(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient, kind: str, method: str, blob: BytesBlob
) -> None:
    fault = proxy.add(kind, method)
    assert client.put_blob(blob) == blob.size
    assert fault.hit == 1
    assert content(repository, blob) == blob.data


@pytest.mark.parametrize("kind", ["reset", "status", "cut_request", "damage_request", "lose_answer", "fail_after"])
def test_a_big_upload_that_breaks_in_its_bytes_arrives_whole(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient, kind: str
) -> None:
    faults = [proxy.add(kind, "PATCH"), proxy.add(kind, "PATCH")]
    assert client.put_blob(BIG) == BIG.size
    assert [fault.hit for fault in faults] == [1, 1]
    assert content(repository, BIG) == BIG.data


def test_an_upload_goes_on_where_it_broke(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient
) -> None:
    # This registry cannot tell what arrived of a request that was cut: all is sent again, in pieces now. When the
    # second piece breaks, the first is known to have arrived.
    blob = BytesBlob.of(os.urandom(40 << 20))
    proxy.add("cut_request", "PATCH")
    proxy.add("status", "PATCH", after=1)
    assert client.put_blob(blob) == blob.size
    pieces = [seen.size for seen in proxy.seen if seen.method == "PATCH"]
    assert pieces == [blob.size, 16 << 20, 16 << 20, 16 << 20, 8 << 20]
    assert content(repository, blob) == blob.data


@pytest.mark.parametrize(("kind", "method"), [("cut_request", "PUT"), ("reset", "POST")])
def test_an_upload_that_always_breaks_is_a_clear_error(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient, kind: str, method: str
) -> None:
    fault = proxy.add(kind, method, times=FOREVER)
    with pytest.raises(RegistryError, match=proxy.host):
        client.put_blob(SMALL)
    assert 1 < fault.hit < 40
    assert not repository.has_blob(SMALL.digest)


@pytest.mark.parametrize(("method", "blob"), [("PUT", SMALL), ("PATCH", BIG)], ids=["small", "big"])
def test_bytes_that_are_always_damaged_are_named_as_that(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient, method: str, blob: BytesBlob
) -> None:
    fault = proxy.add("damage_request", method, times=FOREVER)
    with pytest.raises(DigestMismatchError, match=r"did not arrive whole.*check proxies"):
        client.put_blob(blob)
    assert fault.hit < 30
    assert not repository.has_blob(blob.digest)


@pytest.mark.parametrize("blob", [SMALL, BIG], ids=["small", "big"])
@pytest.mark.parametrize("kind", ["reset", "status", "cut_answer", "slow"])
def test_a_download_that_breaks_comes_back_whole(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient, kind: str, blob: BytesBlob
) -> None:
    repository.put_blob(blob)
    fault = proxy.add(kind, "GET", "blobs", times=2)
    assert content(client, blob) == blob.data
    assert fault.hit == 2 or kind == "slow"


def test_a_download_goes_on_where_it_broke(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient
) -> None:
    repository.put_blob(BIG)
    proxy.add("cut_answer", "GET", "blobs")
    assert content(client, BIG) == BIG.data
    ranges = [seen.headers.get("range") for seen in proxy.seen]
    assert ranges[0] is None
    assert int(str(ranges[1]).removeprefix("bytes=").rstrip("-")) > 0


def test_damaged_bytes_are_never_taken_for_the_blob(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient
) -> None:
    repository.put_blob(SMALL)
    proxy.add("damage_answer", "GET", "blobs", times=FOREVER)
    with pytest.raises(DigestMismatchError, match="damaged on the way"):
        content(client, SMALL)


@pytest.mark.parametrize("kind", ["reset", "status", "cut_request", "damage_request", "lose_answer", "fail_after"])
def test_a_manifest_that_breaks_once_gets_its_tag(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient, kind: str
) -> None:
    fault = proxy.add(kind, "PUT", "manifests")
    digest = push_config(client)
    assert fault.hit == 1
    assert repository.head_manifest("tag") == digest


def test_a_manifest_that_arrives_damaged_moves_no_tag(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient
) -> None:
    digest = push_config(repository)
    proxy.add("damage_request", "PUT", "manifests", times=FOREVER)
    with pytest.raises(RegistryError):
        push_config(client, b'{"other": 1}')
    assert repository.head_manifest("tag") == digest


def test_a_manifest_digest_that_is_not_ours_is_an_error(proxy: FaultyProxy, client: RegistryClient) -> None:
    wrong = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    proxy.add("header", "PUT", "manifests", times=FOREVER, headers=wrong)
    with pytest.raises(DigestMismatchError, match=r"was sent as sha256.*arrived as sha256:000"):
        push_config(client)


def test_a_manifest_that_is_damaged_on_the_way_back_is_refused(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient
) -> None:
    digest = push_config(repository)
    proxy.add("damage_answer", "GET", "manifests", times=FOREVER)
    for reference in ("tag", digest):
        with pytest.raises(DigestMismatchError, match="damaged on the way"):
            client.get_manifest(reference)


def test_a_head_without_a_digest_is_answered_by_the_bytes(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient
) -> None:
    digest = push_config(repository)
    proxy.add("header", "HEAD", "manifests", headers={"Docker-Content-Digest": ""})
    assert client.head_manifest("tag") == digest


def test_a_registry_that_asks_for_patience_gets_it(
    proxy: FaultyProxy, client: RegistryClient, repository: RegistryClient
) -> None:
    digest = push_config(repository)
    proxy.add("status", "HEAD", status=429, headers={"Retry-After": "1"})
    started = time.monotonic()
    assert client.head_manifest("tag") == digest
    assert time.monotonic() - started >= 1


def test_a_registry_that_asks_for_too_much_patience_is_an_error_at_once(
    proxy: FaultyProxy, client: RegistryClient
) -> None:
    fault = proxy.add("status", "HEAD", status=429, times=FOREVER, headers={"Retry-After": "3600"})
    with pytest.raises(RegistryError, match=r"answers 429.*Try again later"):
        client.head_manifest("tag")
    assert fault.hit == 1


def test_a_refusal_is_not_tried_again(proxy: FaultyProxy, client: RegistryClient) -> None:
    fault = proxy.add("status", "PUT", status=413, times=FOREVER)
    with pytest.raises(RegistryError, match="answers 413"):
        client.put_blob(SMALL)
    assert fault.hit == 1
