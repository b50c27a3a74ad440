"""Container registry ``acr``: logins for tokens of an emulated Entra ID, a CNCF registry for what is pushed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from azure.containerregistry import ContainerRegistryClient
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.clouds.azure.acr import AcrRepository
from airflow_stepops.clouds.azure.connection import account
from airflow_stepops.clouds.azure.container_registry import AcrContainerRegistry
from airflow_stepops.errors import RegistryAuthError, RegistryError, StackError
from airflow_stepops.images.registry.blobs import BytesBlob
from airflow_stepops.stacks.components import ContainerRegistryComponent
from airflow_stepops.stacks.flavors import component, component_from_document
from tests.clouds.azure.acr import ARM, REGISTRIES, USER, Acr
from tests.clouds.azure.conftest import Connect
from tests.clouds.azure.emulated import CLIENT, SECRET, SUBSCRIPTION, EmulatedAzure
from tests.engines import run
from tests.images.conftest import push_config
from tests.images.faults import FaultyProxy

REAL = "steps.azurecr.io"
DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture
def images(acr_front: FaultyProxy, connection: str) -> AcrContainerRegistry:
    """A registry with a repository of a name that is new."""
    return AcrContainerRegistry(
        name="images", uri=f"{acr_front.host}/team", repository=f"r{uuid.uuid4().hex}", connection=connection
    )


def test_an_image_that_is_pushed_is_what_others_pull(images: AcrContainerRegistry, acr: Acr) -> None:
    digest = push_config(images.open())
    repository = images.open()
    assert repository.head_manifest("tag") == digest
    assert repository.reference(digest) == f"{images.uri}/{images.repository}@{digest}"
    login = repository.login()
    assert login == (USER, acr.given[-1])
    name = f"docker://{repository.name}:tag"
    inspected = run("skopeo", "inspect", "--raw", "--tls-verify=false", "--creds", ":".join(login), name)
    assert json.loads(inspected)["layers"] == []
    assert acr.logins[login[1]] == CLIENT


def test_microsoft_s_own_client_reads_the_image(images: AcrContainerRegistry, acr: Acr, acr_front: FaultyProxy) -> None:
    digest = push_config(images.open())
    own = {"audience": "https://containerregistry.azure.net"}
    name = f"team/{images.repository}"
    with ContainerRegistryClient(f"http://{acr_front.host}", account(images.connection).credential, **own) as client:
        found = client.get_manifest(name, "tag", enforce_https=False)
        assert found.digest == digest
        config = found.manifest["config"]["digest"]
        data = b"".join(client.download_blob(name, config, enforce_https=False))
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == config


def test_one_login_serves_all_that_is_opened(
    images: AcrContainerRegistry, acr: Acr, azure: EmulatedAzure, acr_front: FaultyProxy
) -> None:
    logins, tokens = len(acr.given), len(azure.grants)
    push_config(images.open())
    images.overridden({"repository": "stepops"}).open().head_manifest("tag")
    assert len(acr.given) - logins == len(azure.grants) - tokens == 1
    assert acr_front.count("POST", "/oauth2/exchange") == 1


def test_a_login_whose_end_is_near_is_given_to_nobody_else(
    images: AcrContainerRegistry, acr: Acr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acr, "login_seconds", 60.0)
    before = len(acr.given)
    for expected in (1, 2):
        images.open().login()
        assert len(acr.given) - before == expected


def test_a_login_that_ends_during_a_push_is_renewed(images: AcrContainerRegistry, acr: Acr) -> None:
    repository = images.open()
    push_config(repository)
    acr.logins.clear()
    before, blob = len(acr.given), BytesBlob.of(os.urandom(6 << 20))
    other = images.overridden({"repository": f"r{uuid.uuid4().hex}"}).open()
    assert other.put_blob(blob) == blob.size
    assert push_config(repository, b'{"other": 1}') == repository.head_manifest("tag")
    assert len(acr.given) - before == 1
    with other.get_blob(blob.digest) as stream:
        assert stream.read() == blob.data


def test_threads_that_meet_an_ended_login_renew_it_and_all_go_on(images: AcrContainerRegistry, acr: Acr) -> None:
    repository = images.open()
    push_config(repository)
    acr.logins.clear()
    other = images.overridden({"repository": f"r{uuid.uuid4().hex}"}).open()
    blobs = [BytesBlob.of(os.urandom(1000)) for _ in range(6)]
    before, ready = len(acr.given), threading.Barrier(6, timeout=30)

    def put(blob: BytesBlob) -> int:
        ready.wait()
        return other.put_blob(blob)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(put, blobs)) == [1000] * 6
    assert len(acr.given) - before == 1


def test_a_registry_that_takes_no_tokens_for_resource_manager_gets_one_for_registries(
    images: AcrContainerRegistry, acr: Acr, azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acr, "takes", (REGISTRIES,))
    before = len(azure.grants)
    push_config(images.open())
    assert [grant.removeprefix(f"{azure.url}/") for grant in azure.grants[before:]] == [ARM, REGISTRIES]


def test_an_identity_that_the_registry_does_not_know_is_said_with_the_role_that_it_needs(
    images: AcrContainerRegistry, acr: Acr, azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acr, "denied", {CLIENT})
    with pytest.raises(
        RegistryAuthError, match=rf"does not take the identity .*'{images.connection}'.* AcrPush"
    ) as raised:
        images.open().head_manifest("tag")
    assert not any(token in str(raised.value) for token in azure.tokens)


def test_credentials_that_are_not_good_are_said(images: AcrContainerRegistry, connect: Connect) -> None:
    wrong = images.overridden({"connection": connect(CLIENT, "wrong~secret")})
    with pytest.raises(RegistryAuthError, match="AADSTS7000215") as raised:
        wrong.open().head_manifest("tag")
    assert "wrong~secret" not in str(raised.value)


def test_the_admin_user_or_a_token_of_the_registry_logs_in_without_entra_id(
    images: AcrContainerRegistry, acr: Acr, azure: EmulatedAzure, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acr, "passwords", {"robot": "of+the/registry"})
    before = len(azure.grants)
    by_name = images.overridden({"connection": connect("robot", "of+the/registry", tenantId=None)})
    digest = push_config(by_name.open())
    assert by_name.open().head_manifest("tag") == digest
    assert by_name.open().login() == ("robot", "of+the/registry")
    assert len(azure.grants) == before
    wrong = images.overridden({"connection": connect("robot", "wrong", tenantId=None)})
    with pytest.raises(RegistryAuthError, match="check the registry's login"):
        wrong.open().head_manifest("tag")


def test_an_exchange_that_fails_for_a_moment_is_tried_again(
    images: AcrContainerRegistry, acr_front: FaultyProxy
) -> None:
    faults = [
        acr_front.add("status", "POST", "/oauth2/exchange", status=503),
        acr_front.add("reset", "POST", "/oauth2/exchange"),
        acr_front.add("lose_answer", "POST", "/oauth2/exchange"),
        acr_front.add("status", "POST", "/oauth2/exchange", status=429, headers={"Retry-After": "0"}),
    ]
    assert push_config(images.open()) == images.open().head_manifest("tag")
    assert [fault.hit for fault in faults] == [1, 1, 1, 1]


def test_a_push_survives_what_breaks_on_the_way(images: AcrContainerRegistry, acr_front: FaultyProxy) -> None:
    faults = [acr_front.add("reset", "POST", "/blobs/uploads/"), acr_front.add("status", "PUT", "/manifests/")]
    digest = push_config(images.open())
    assert images.open().head_manifest("tag") == digest
    assert [fault.hit for fault in faults] == [1, 1]


def test_what_is_no_registry_of_azure_is_said(images: AcrContainerRegistry, registry: str) -> None:
    repository = images.overridden({"uri": f"{registry}/team"}).open()
    with pytest.raises(RegistryError, match=r"/oauth2/exchange answers 404"):
        repository.login()


@pytest.mark.parametrize(
    ("registry", "opens"),
    [
        ("other.azurecr.io", True),
        ("abcd.azurecr.io", False),
        ("others-abc123.azurecr.io", True),
        ("others.azurecr.cn", True),
        ("mcr.microsoft.com", False),
        ("docker.io", False),
        ("others.azurecr.io.example.com", False),
        ("others.azurecr.io:8080", False),
    ],
)
def test_the_connection_opens_bases_in_other_registries_of_azure_and_nowhere_else(
    registry: str, opens: bool, images: AcrContainerRegistry, acr_front: FaultyProxy
) -> None:
    repository = images.open()
    assert isinstance(repository, AcrRepository)
    assert (repository.login_for(registry) is not None) is opens
    assert repository.login_for(acr_front.host) is not None


def test_no_secret_goes_into_a_document(images: AcrContainerRegistry, acr: Acr, azure: EmulatedAzure) -> None:
    push_config(images.open())
    told = json.dumps([images.document(), repr(images), repr(images.open().__dict__)])
    assert not any(secret in told for secret in (SECRET, *azure.tokens, *acr.given))
    assert component_from_document(ContainerRegistryComponent, images.document()) == images


def test_a_connection_that_is_missing_is_said(images: AcrContainerRegistry) -> None:
    with pytest.raises(StackError, match="no Airflow connection 'azure_nobody'"):
        images.overridden({"connection": "azure_nobody"}).open().head_manifest("tag")


def test_a_registry_has_a_page_in_the_portal(images: AcrContainerRegistry) -> None:
    real = images.overridden({"uri": f"{REAL}/team"})
    reference = f"{REAL}/team/stepops@{DIGEST}"
    assert real.console_url(reference) == ""
    page = real.overridden({"resource_group": "ml"}).console_url(reference)
    place = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/ml/providers/Microsoft.ContainerRegistry/registries/steps"
    assert page == f"https://portal.azure.com/#resource{place}/repository"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"uri": "https://steps.azurecr.io"}, "without https://"),
        ({"uri": "docker.io/team"}, "other registries have the flavor 'generic'"),
        ({"uri": "abc.azurecr.io"}, "give the login server"),
        ({"uri": "steps.azurecr.io/Team"}, "lower-case"),
        ({"uri": "steps.azurecr.io/"}, "lower-case"),
        ({"uri": REAL, "repository": "Steps"}, "lower-case"),
        ({"uri": f"{REAL}/{'a' * 170}"}, "too long"),
        ({"uri": REAL, "create_repository": True}, "unknown setting|not a setting|Allowed"),
        ({}, "this setting is required"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(StackError, match=said):
        where = "stepops.yaml: container_registries.images"
        component("container_registries", "images", {"flavor": "acr", **settings}, where)


@given(
    name=st.from_regex(r"[a-z0-9]{5,50}(-[a-z0-9]{1,10})?\.azurecr\.(io|us|cn)", fullmatch=True),
    repository=st.from_regex(r"[a-z0-9]{1,8}([._/-][a-z0-9]{1,8}){0,3}", fullmatch=True),
)
def test_any_name_of_azure_s_is_the_name_of_images(name: str, repository: str) -> None:
    images = AcrContainerRegistry(uri=name, repository=repository)
    assert images.open().reference(DIGEST) == f"{name}/{repository}@{DIGEST}"


def test_reading_the_flavor_imports_no_client() -> None:
    code = """
import sys
import airflow_stepops.clouds.azure.container_registry
print(sorted({"azure", "azure.identity", "msal", "httpx", "airflow", "obstore"} & set(sys.modules)))
"""
    assert run(sys.executable, "-c", code) == "[]\n"
