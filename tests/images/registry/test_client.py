"""The client against real registries: open, with a password, with tokens."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest

from airflow_stepops.errors import RegistryAuthError, RegistryError
from airflow_stepops.images.manifests import OCI
from airflow_stepops.images.registry.blobs import BytesBlob, digest_of
from airflow_stepops.images.registry.client import RegistryClient
from tests.engines import free_port, run, running_registry
from tests.images.certificates import self_signed
from tests.images.conftest import push_config
from tests.images.faults import FaultyProxy, faulty_proxy
from tests.images.token_service import TokenService, token_service

#: An address of this machine that is not taken for this machine.
ELSEWHERE = "127.0.0.2"


def test_blobs_and_manifests_come_back(repository: RegistryClient) -> None:
    blob = BytesBlob.of(os.urandom(10 << 20))
    assert repository.put_blob(blob) == blob.size
    assert repository.put_blob(blob) == 0
    with repository.get_blob(blob.digest) as stream:
        assert stream.read() == blob.data
    digest = push_config(repository)
    assert repository.head_manifest("tag") == repository.head_manifest(digest) == digest
    media_type, data = repository.get_manifest(digest)
    assert (media_type, digest_of(data)) == (OCI.manifest, digest)
    assert repository.reference(digest) == f"{repository.name}@{digest}"


def test_what_is_not_there_is_none_or_a_clear_error(repository: RegistryClient) -> None:
    assert repository.head_manifest("tag") is None
    assert not repository.has_blob(digest_of(b"nothing"))
    with pytest.raises(RegistryError, match=r"answers 404 \(MANIFEST_UNKNOWN.*Check the name"):
        repository.get_manifest("tag")
    with pytest.raises(RegistryError, match="404"), repository.get_blob(digest_of(b"nothing")) as stream:
        stream.read()


def test_a_manifest_whose_blobs_are_missing_is_refused_and_moves_no_tag(repository: RegistryClient) -> None:
    digest = push_config(repository)
    described = {"mediaType": OCI.config, "digest": digest_of(b"missing"), "size": 7}
    manifest = {"schemaVersion": 2, "mediaType": OCI.manifest, "config": described, "layers": []}
    with pytest.raises(RegistryError, match="BLOB_UNKNOWN"):
        repository.put_manifest("tag", OCI.manifest, json.dumps(manifest).encode())
    assert repository.head_manifest("tag") == digest


def test_a_blob_of_another_repository_is_mounted_without_a_byte(registry: str, repository: RegistryClient) -> None:
    source = repository.sibling(f"{repository.path}/source")
    blob = BytesBlob.of(os.urandom(1000))
    source.put_blob(blob)
    assert repository.mount_blob(blob.digest, source.path)
    assert repository.has_blob(blob.digest)
    assert not repository.mount_blob(digest_of(b"nowhere"), source.path)


def test_a_registry_that_is_not_there_is_named() -> None:
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(RegistryError, match=rf"{host}: HEAD /v2/x/manifests/tag got no answer.*Check the registry"):
        RegistryClient(f"{host}/x").head_manifest("tag")


def test_plain_http_is_spoken_with_another_machine_only_when_asked_for(tmp_path: Path) -> None:
    with running_registry(tmp_path, address=ELSEWHERE) as host:
        with pytest.raises(RegistryError, match="set 'insecure: true'"):
            RegistryClient(f"{host}/x").head_manifest("tag")
        assert RegistryClient(f"{host}/x", insecure=True).head_manifest("tag") is None


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_plain_http_is_spoken_with_this_machine_whatever_proxies_are_set(
    registry: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert RegistryClient(f"{name}:{registry.partition(':')[2]}/x").head_manifest("tag") is None


@pytest.fixture(scope="module")
def password_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("password-registry")
    hashed = bcrypt.hashpw(b"s3cret:word", bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"AWS:{hashed}\n")
    auth = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    with running_registry(folder, auth, {"relativeurls": True}) as host:
        yield host


def test_a_registry_with_a_password_takes_one_request_for_an_answer(password_registry: str) -> None:
    client = RegistryClient(f"{password_registry}/team/x", credentials=lambda: ("AWS", "s3cret:word"))
    digest = push_config(client)
    before = client.requests
    assert client.head_manifest("tag") == digest
    assert client.requests - before == 1
    fresh = RegistryClient(f"{password_registry}/team/x", credentials=lambda: ("AWS", "s3cret:word"))
    assert (fresh.head_manifest("tag"), fresh.requests) == (digest, 1)


@pytest.mark.parametrize("credentials", [None, lambda: None, lambda: ("AWS", "wr0ng"), lambda: ("nobody", "")])
def test_a_wrong_password_is_an_error_of_its_own_kind_that_hides_it(
    password_registry: str, credentials: object
) -> None:
    client = RegistryClient(f"{password_registry}/team/x", credentials=credentials)  # type: ignore[arg-type]
    with pytest.raises(RegistryAuthError, match=r"answers 401.*Check the registry's login") as caught:
        push_config(client)
    assert "wr0ng" not in str(caught.value)


def test_a_password_that_changes_is_asked_for_again(password_registry: str) -> None:
    given = iter([("AWS", "old"), ("AWS", "s3cret:word")])
    client = RegistryClient(f"{password_registry}/team/changing", credentials=lambda: next(given))
    assert push_config(client)


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenService]:
    with token_service(tmp_path) as service:
        yield service


@pytest.fixture
def token_registry(tokens: TokenService, tmp_path: Path) -> Iterator[str]:
    with running_registry(tmp_path / "token-registry", tokens.auth) as host:
        yield host


def pusher() -> tuple[str, str]:
    return "pusher", "s3cret/word"


def test_tokens_are_asked_for_once_with_the_scope_that_the_work_needs(
    token_registry: str, tokens: TokenService
) -> None:
    client = RegistryClient(f"{token_registry}/team/x", credentials=pusher)
    blobs = [BytesBlob.of(os.urandom(1000)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(client.put_blob, blobs)) == [1000] * 8
    assert push_config(client) == client.head_manifest("tag")
    assert tokens.asked == [("pusher", ["repository:team/x:pull,push"])]


def test_skopeo_reads_what_was_pushed_with_a_token(token_registry: str) -> None:
    client = RegistryClient(f"{token_registry}/team/x", credentials=pusher)
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    digest = push_config(client, config.encode())
    target = f"docker://{token_registry}/team/x:tag"
    inspected = json.loads(run("skopeo", "inspect", "--tls-verify=false", "--creds", ":".join(pusher()), target))
    assert inspected["Digest"] == digest


def test_a_mount_asks_for_the_other_repository_too(token_registry: str, tokens: TokenService) -> None:
    client = RegistryClient(f"{token_registry}/team/x", credentials=pusher)
    source = RegistryClient(f"{token_registry}/team/source", credentials=pusher)
    blob = BytesBlob.of(b"content")
    source.put_blob(blob)
    assert client.mount_blob(blob.digest, "team/source")
    assert tokens.asked[-1] == ("pusher", ["repository:team/x:pull,push", "repository:team/source:pull"])


def test_a_token_that_expires_is_renewed(token_registry: str, tokens: TokenService) -> None:
    tokens.lifetime = 1
    client = RegistryClient(f"{token_registry}/team/x", credentials=pusher)
    # A lifetime of 0.9 s passes while the client works: the registry itself is lenient by a minute.
    push_config(client)
    while len(tokens.asked) < 2:
        assert client.head_manifest("tag")
    assert len(tokens.asked) == 2


def test_a_token_that_the_registry_no_longer_takes_is_replaced(token_registry: str, tokens: TokenService) -> None:
    with faulty_proxy(token_registry) as proxy:
        client = RegistryClient(f"{proxy.host}/team/x", credentials=pusher)
        digest = push_config(client)
        challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url}",service="registry.test"'}
        proxy.add("status", "HEAD", "manifests", status=401, headers=challenge)
        assert client.head_manifest("tag") == digest
        assert len(tokens.asked) == 2


@pytest.mark.parametrize(
    ("credentials", "said"),
    [(None, "401"), (("pusher", "wr0ng"), "gave no token"), (("reader", "r"), "answers 401")],
)
def test_who_may_not_push_is_told_so(token_registry: str, credentials: tuple[str, str] | None, said: str) -> None:
    client = RegistryClient(f"{token_registry}/team/x", credentials=lambda: credentials)
    with pytest.raises(RegistryAuthError, match=said) as caught:
        push_config(client)
    assert "wr0ng" not in str(caught.value)


def test_a_token_service_that_fails_for_now_is_asked_again(token_registry: str, tokens: TokenService) -> None:
    tokens.failures = [503, 500]
    assert push_config(RegistryClient(f"{token_registry}/team/x", credentials=pusher))
    assert len(tokens.asked) == 3


def test_a_redirect_to_another_host_carries_no_credentials(password_registry: str) -> None:
    credentials = lambda: ("AWS", "s3cret:word")  # noqa: E731
    direct = RegistryClient(f"{password_registry}/team/x", credentials=credentials)
    blob = BytesBlob.of(b"content")
    direct.put_blob(blob)
    with faulty_proxy(password_registry) as registry, faulty_proxy(password_registry) as storage:
        path = f"/v2/team/x/blobs/{blob.digest}"
        registry.add("status", "GET", "blobs", status=307, headers={"Location": f"http://{storage.host}{path}"})
        client = RegistryClient(f"{registry.host}/team/x", credentials=credentials)
        with pytest.raises(RegistryAuthError), client.get_blob(blob.digest) as stream:
            stream.read()
        basic = base64.b64encode(b"AWS:s3cret:word").decode()
        assert [seen.headers.get("authorization", "") for seen in registry.seen] == [f"Basic {basic}"]
        assert [seen.headers.get("authorization") for seen in storage.seen] == [None]


def test_what_a_redirect_leads_to_cannot_ask_for_the_password(password_registry: str) -> None:
    credentials = lambda: ("AWS", "s3cret:word")  # noqa: E731
    with faulty_proxy(password_registry) as registry, faulty_proxy(password_registry) as elsewhere:
        registry.add("status", "GET", "blobs", status=307, headers={"Location": f"http://{elsewhere.host}/blob"})
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{elsewhere.host}/token",service="x"'}
        elsewhere.add("status", "GET", "blob", status=401, headers=challenge)
        client = RegistryClient(f"{registry.host}/team/x", credentials=credentials)
        with pytest.raises(RegistryAuthError), client.get_blob(digest_of(b"content")) as stream:
            stream.read()
        assert [seen.path for seen in elsewhere.seen] == ["/blob"]


def test_registries_that_answer_with_another_success_are_understood(proxy: FaultyProxy, registry: str) -> None:
    # ECR answers 201 to a PATCH; others 202 to what ends an upload.
    faults = [proxy.add("as", method, status=status) for method, status in (("PATCH", 201), ("PUT", 202))]
    client = RegistryClient(f"{proxy.host}/team/other-success")
    blob = BytesBlob.of(os.urandom(5 << 20))
    assert client.put_blob(blob) == blob.size
    assert [fault.hit for fault in faults] == [1, 1]
    assert RegistryClient(f"{registry}/team/other-success").has_blob(blob.digest)


def test_relative_locations_are_followed(password_registry: str) -> None:
    client = RegistryClient(f"{password_registry}/team/relative", credentials=lambda: ("AWS", "s3cret:word"))
    blob = BytesBlob.of(os.urandom(5 << 20))
    assert client.put_blob(blob) == blob.size
    assert client.has_blob(blob.digest)


def test_tls_is_checked_and_an_authority_of_one_s_own_can_be_named(tmp_path: Path) -> None:
    key, certificate = self_signed("registry.test")
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "certificate.pem").write_bytes(certificate)
    tls = {"certificate": str(tmp_path / "certificate.pem"), "key": str(tmp_path / "key.pem")}
    code = (
        "import sys; from airflow_stepops.images.registry.client import RegistryClient\n"
        "print(RegistryClient(sys.argv[1]).head_manifest('tag'))"
    )
    with running_registry(tmp_path, http={"tls": tls}, address=ELSEWHERE, ca=tmp_path / "certificate.pem") as host:
        command = [sys.executable, "-c", code, f"{host}/x"]
        plain = subprocess.run(command, capture_output=True, text=True, check=False)
        trusting = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "certificate.pem")}
        trusted = subprocess.run(command, env=trusting, capture_output=True, text=True, check=False)
    assert f"RegistryError: {host}: HEAD" in plain.stderr
    assert "file in SSL_CERT_FILE" in plain.stderr
    assert trusted.stdout == "None\n", trusted.stderr


def test_a_redirect_to_open_storage_gives_the_blob(proxy: FaultyProxy, registry: str) -> None:
    client = RegistryClient(f"{proxy.host}/team/redirected")
    blob = BytesBlob.of(b"content" * 100)
    client.put_blob(blob)
    location = f"http://{registry}/v2/team/redirected/blobs/{blob.digest}"
    proxy.add("status", "GET", "blobs", status=307, headers={"Location": location})
    with client.get_blob(blob.digest) as stream:
        assert stream.read() == blob.data
