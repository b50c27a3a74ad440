"""Artifact store ``azure-blob``, in the worker and in a job: Azurite with TLS and tokens, and with keys."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.clouds.azure.artifact_store import AzureBlobArtifactStore
from airflow_stepops.errors import ArtifactError, ArtifactExistsError, ArtifactNotFoundError, StackError
from airflow_stepops.jobs.ledger import Ledger
from airflow_stepops.runtime.spec import Attempt
from airflow_stepops.stacks.components import ArtifactStoreComponent
from airflow_stepops.stacks.flavors import component, component_from_document
from tests.clouds.azure.conftest import Connect
from tests.clouds.azure.emulated import (
    ACCOUNT,
    ACCOUNT_KEY,
    CLIENT,
    IDENTITY,
    SECRET,
    SUBSCRIPTION,
    EmulatedAzure,
    running_azurite,
)
from tests.engines import run
from tests.images.faults import FaultyProxy, faulty_proxy

MEBIBYTE = 1024 * 1024
STORAGE = "https://storage.azure.com"


@pytest.fixture(scope="module")
def container(azure: EmulatedAzure) -> str:
    """A container of the account."""
    azure.make_container("values")
    return "values"


@pytest.fixture
def values(azure: EmulatedAzure, container: str, connection: str) -> AzureBlobArtifactStore:
    """A store in an empty folder of the container."""
    return AzureBlobArtifactStore(
        name="values",
        account_name=ACCOUNT,
        container=container,
        prefix=f"team/{uuid.uuid4().hex}",
        connection=connection,
        endpoint=azure.blob_url,
    )


@pytest.fixture(scope="module")
def by_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an account over plain HTTP that takes keys and signatures alone, with a container ``values``."""
    with running_azurite(tmp_path_factory.mktemp("azurite")) as url:
        BlobServiceClient(url, {"account_name": ACCOUNT, "account_key": ACCOUNT_KEY}).create_container("values")
        yield url


@pytest.fixture
def front(by_key: str) -> Iterator[FaultyProxy]:
    """What stands before that account; its requests are seen, and may be broken."""
    with faulty_proxy(by_key.removeprefix("http://").partition("/")[0]) as proxy:
        yield proxy


@pytest.fixture
def broken(front: FaultyProxy, connect: Connect) -> AzureBlobArtifactStore:
    """A store behind ``front``."""
    return AzureBlobArtifactStore(
        account_name=ACCOUNT,
        container="values",
        prefix=uuid.uuid4().hex,
        connection=connect(None, None, account_key=ACCOUNT_KEY),
        endpoint=f"http://{front.host}/{ACCOUNT}",
    )


def in_job(code: str, variables: dict[str, str], *arguments: str) -> str:
    """Run Python as a job does: with its own variables, without Airflow's connections."""
    usual = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), "SSL_CERT_FILE": os.environ["SSL_CERT_FILE"]}
    return run(sys.executable, "-c", code, *arguments, environment={**usual, **variables})


def test_an_object_is_there_from_put_to_delete(values: AzureBlobArtifactStore, azure: EmulatedAzure) -> None:
    store = values.open()
    assert store.root == f"abfss://values@{ACCOUNT}.dfs.core.windows.net/{values.prefix}"
    uri = f"{store.root}/runs/a/result.json"
    with pytest.raises(ArtifactNotFoundError, match=uri):
        store.get(uri)
    store.put(uri, b"first")
    assert (store.get(uri), store.size(uri), store.list(store.root)) == (b"first", 5, [uri])
    store.delete(uri)
    store.delete(uri)
    assert store.list(store.root) == []
    assert (CLIENT, STORAGE) in {(client, resource) for client, resource, _ in azure.tokens.values()}


def test_a_long_value_comes_back_whole(values: AzureBlobArtifactStore) -> None:
    store = values.open()
    uri, blocks = f"{store.root}/value", [os.urandom(12 * MEBIBYTE) for _ in range(3)]
    with store.writer(uri) as file:
        for block in blocks:
            file.write(block)
    with store.reader(uri) as stream:
        assert b"".join(iter(lambda: stream.read(5 * MEBIBYTE), b"")) == b"".join(blocks)


def test_of_two_that_put_if_absent_at_once_exactly_one_wins(values: AzureBlobArtifactStore) -> None:
    rivals, ready = [values.open(), values.open()], threading.Barrier(2, timeout=30)

    def take(number: int, uri: str) -> bool:
        ready.wait()
        try:
            rivals[number].put_if_absent(uri, str(number).encode())
        except ArtifactExistsError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for attempt in range(10):
            uri = f"{values.root()}/lock-{attempt}"
            won = list(pool.map(take, [0, 1], [uri] * 2))
            assert sorted(won) == [False, True]
            assert rivals[0].get(uri) == str(won.index(True)).encode()


IN_JOB = """
import sys
from airflow_stepops.artifacts.store import ArtifactStore
store = ArtifactStore(sys.argv[1])
store.put_if_absent(sys.argv[2], b"from the job")
print("azure.identity" in sys.modules)
"""


def test_a_job_of_azure_ml_opens_the_store_as_the_identity_of_its_machine(
    values: AzureBlobArtifactStore, azure: EmulatedAzure
) -> None:
    uri, before = f"{values.root()}/value", len(azure.grants)
    variables = {**values.job_environment(), **azure.identity}
    assert in_job(IN_JOB, variables, values.root(), uri) == "False\n"
    assert values.open().get(uri) == b"from the job"
    asked = [call for call in azure.calls if call.service == "msi"][-1]
    assert (asked.query["resource"], asked.query["clientid"]) == (STORAGE, IDENTITY)
    assert azure.grants[before:].count(STORAGE) >= 1


DELETE_IN_JOB = """
import sys
from airflow_stepops.artifacts.store import ArtifactStore
store = ArtifactStore(sys.argv[1])
for uri in sys.argv[2:]:
    store.delete(uri)
"""


@pytest.mark.parametrize("prefix", ["", "a (team)"])
def test_a_job_of_azure_ml_deletes_what_is_there_and_what_is_not(
    values: AzureBlobArtifactStore, azure: EmulatedAzure, prefix: str
) -> None:
    container = f"deletes-{uuid.uuid4().hex}"
    azure.make_container(container)
    store = values.model_copy(update={"container": container, "prefix": prefix}).open()
    uris = [f"{store.root}/runs/{name}" for name in ("plain", "a b%20c/é+#?", "kept")]
    for uri in uris:
        store.put(uri, b"x")
    variables = {**values.job_environment(), **azure.identity}
    in_job(DELETE_IN_JOB, variables, store.root, *uris[:2], f"{store.root}/runs/nothing")
    assert store.list(store.root) == uris[2:]


def test_a_job_that_says_which_of_several_identities_it_is_is_that_one(
    values: AzureBlobArtifactStore, azure: EmulatedAzure
) -> None:
    variables = {**values.job_environment(), **azure.identity, "AZURE_CLIENT_ID": "another"}
    in_job(IN_JOB, variables, values.root(), f"{values.root()}/value")
    assert [call.query["clientid"] for call in azure.calls if call.service == "msi"][-1] == "another"


def test_a_job_that_runs_as_the_person_who_submitted_it_opens_the_store_as_that_one(
    values: AzureBlobArtifactStore, azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(call: object) -> tuple[int, object]:
        return 200, {"access_token": azure.new_token("a person", STORAGE), "expires_on": str(int(time.time()) + 600)}

    monkeypatch.setitem(azure.apis, "obo", answer)
    variables = {**values.job_environment(), **azure.identity, "OBO_ENDPOINT": f"{azure.url}/obo/token"}
    azure.answer_with("obo", "token", lambda: answer(None), times=1)
    in_job(IN_JOB, variables, values.root(), f"{values.root()}/value")
    assert azure.calls[-1].service == "obo"
    assert azure.calls[-1].query == {"resource": STORAGE}


def test_a_job_elsewhere_opens_the_store_with_what_obstore_finds(by_key: str, broken: AzureBlobArtifactStore) -> None:
    variables = {**broken.job_environment(), "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}
    in_job(IN_JOB, variables, broken.root(), f"{broken.root()}/value")
    assert broken.open().get(f"{broken.root()}/value") == b"from the job"


def test_an_identity_that_is_not_ready_yet_is_asked_again(values: AzureBlobArtifactStore, azure: EmulatedAzure) -> None:
    plan = azure.fail("msi", "", 500, "InternalError", times=1)
    in_job(IN_JOB, {**values.job_environment(), **azure.identity}, values.root(), f"{values.root()}/value")
    assert plan.times == 0
    assert values.open().exists(f"{values.root()}/value")


def test_a_job_without_an_identity_says_what_it_needs(
    values: AzureBlobArtifactStore, azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**values.job_environment(), **azure.identity, "MSI_SECRET": "wrong"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ArtifactError, match=r"gave no access token \(HTTP Error 403.* stepops permissions"):
        ArtifactStore(values.root()).put(f"{values.root()}/value", b"")
    nothing = azure.answer_with("msi", "", lambda: (200, {"access_token": "x"}))
    with pytest.raises(ArtifactError, match="something else than an access token"):
        ArtifactStore(values.root()).put(f"{values.root()}/value", b"")
    nothing.times = 0


def test_credentials_of_the_worker_s_machine_are_not_those_of_the_connection(
    values: AzureBlobArtifactStore, azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**azure.identity, "AZURE_STORAGE_ACCOUNT_KEY": "d3Jvbmc="}.items():
        monkeypatch.setenv(name, value)
    before = azure.count("msi")
    values.open().put(f"{values.root()}/value", b"")
    assert azure.count("msi") == before
    assert values.open().exists(f"{values.root()}/value")


def test_a_key_or_a_signature_of_the_connection_opens_the_store(by_key: str, connect: Connect) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    may = ContainerSasPermissions(read=True, write=True, create=True, list=True, delete=True)
    signature = generate_container_sas(ACCOUNT, "values", account_key=ACCOUNT_KEY, permission=may, expiry=tomorrow)
    for extra in ({"account_key": ACCOUNT_KEY}, {"sas_token": signature}, {"sas_token": f"?{signature}"}):
        store = AzureBlobArtifactStore(
            account_name=ACCOUNT,
            container="values",
            prefix=uuid.uuid4().hex,
            connection=connect(None, None, **extra),
            endpoint=by_key,
        )
        store.open().put_if_absent(f"{store.root()}/value", b"x")
        assert store.open().list(store.root()) == [f"{store.root()}/value"]
        assert not any(secret in json.dumps(dict(store.job_environment())) for secret in (ACCOUNT_KEY, signature))


def test_no_secret_goes_to_a_job_or_into_a_document(values: AzureBlobArtifactStore, azure: EmulatedAzure) -> None:
    assert values.job_environment() == {"AZURE_STORAGE_ENDPOINT": azure.blob_url}
    values.open().put(f"{values.root()}/value", b"")
    told = json.dumps([values.document(), dict(values.job_environment()), repr(values), values.root()])
    assert not any(secret in told for secret in (SECRET, *azure.tokens))
    assert component_from_document(ArtifactStoreComponent, values.document()) == values


def test_azure_itself_needs_no_variables_in_the_job_and_a_government_s_cloud_the_endpoint(connect: Connect) -> None:
    store = AzureBlobArtifactStore(account_name="team", container="abc", connection=connect())
    assert (store.root(), store.job_environment()) == ("abfss://abc@team.dfs.core.windows.net", {})
    of_government = "https://team.blob.core.usgovcloudapi.net"
    other = store.overridden({"endpoint": f"{of_government}/", "prefix": "a/b"})
    assert other.root() == "abfss://abc@team.dfs.core.usgovcloudapi.net/a/b"
    assert other.job_environment() == {"AZURE_STORAGE_ENDPOINT": of_government}


def test_a_connection_of_another_cloud_says_which_endpoint_is_missing(connect: Connect) -> None:
    connection = connect(cloud_environment="AzureChinaCloud", cloud_endpoints={})
    with pytest.raises(StackError, match=r"AzureChinaCloud: give .* 'endpoint: https://team\.blob\.core\.chinacloud"):
        AzureBlobArtifactStore(account_name="team", container="abc", connection=connection).open()


def test_a_container_that_does_not_exist_is_said(values: AzureBlobArtifactStore) -> None:
    store = values.overridden({"container": "nobody"}).open()
    with pytest.raises(ArtifactError, match=r"/a: the bucket does not exist"):
        store.put(f"{store.root}/a", b"")


def test_a_store_that_is_open_for_long_takes_new_tokens(
    values: AzureBlobArtifactStore, azure: EmulatedAzure, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure, "token_seconds", 1.0)
    store = values.overridden({"connection": connect()}).open()
    for number in range(2):
        before = len(azure.grants)
        store.put(f"{store.root}/{number}", b"")
        assert azure.grants[before:] == [STORAGE]
        time.sleep(1.1)
    assert len(store.list(store.root)) == 2


def test_one_token_serves_a_store_for_its_hour(values: AzureBlobArtifactStore, azure: EmulatedAzure) -> None:
    store, before = values.open(), len(azure.grants)
    for number in range(5):
        store.put(f"{store.root}/{number}", b"")
    assert len(azure.grants) - before <= 1
    assert len(store.list(store.root)) == 5


def test_what_fails_for_a_moment_is_tried_again(broken: AzureBlobArtifactStore, front: FaultyProxy) -> None:
    store = broken.open()
    faults = [front.add("status", "PUT", status=503), front.add("reset", "GET")]
    store.put(f"{store.root}/value", b"x")
    assert store.get(f"{store.root}/value") == b"x"
    assert [fault.hit for fault in faults] == [1, 1]


def test_a_claim_whose_answer_is_lost_is_ours_all_the_same(broken: AzureBlobArtifactStore, front: FaultyProxy) -> None:
    store, attempt = broken.open(), Attempt("dag", "run", "task", -1, 1, "instance", "ti-1")
    fault = front.add("lose_answer", "PUT")
    assert Ledger(store, attempt).claim("attempt-2") is True
    assert fault.hit == 1
    assert Ledger(store, attempt).claim("cancel") is False


def test_a_long_value_survives_connections_that_break_on_the_way(
    broken: AzureBlobArtifactStore, front: FaultyProxy
) -> None:
    store, data = broken.open(), os.urandom(20 * MEBIBYTE)
    faults = [front.add("lose_answer", "PUT", "comp=block&", times=2), front.add("cut_request", "PUT", "comp=block&")]
    with store.writer(f"{store.root}/value") as file:
        file.write(data)
    assert store.get(f"{store.root}/value") == data
    assert [fault.hit for fault in faults] == [2, 1]


def test_a_write_that_is_abandoned_leaves_nothing(values: AzureBlobArtifactStore) -> None:
    store = values.open()

    def write() -> None:
        with store.writer(f"{store.root}/value") as file:
            file.write(os.urandom(20 * MEBIBYTE))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write()
    assert store.list(store.root) == []


def test_credentials_that_are_not_good_are_said(values: AzureBlobArtifactStore, connect: Connect) -> None:
    store = values.overridden({"connection": connect(CLIENT, "wrong~secret")}).open()
    said = r"container 'values' of devstoreaccount1: Microsoft Entra ID does not take the credentials: .*AADSTS7000215"
    with pytest.raises(ArtifactError, match=said) as raised:
        store.put(f"{values.root()}/a", b"")
    assert "wrong~secret" not in str(raised.value)


def test_a_connection_that_is_missing_is_said_before_anything_is_written() -> None:
    with pytest.raises(StackError, match="no Airflow connection 'azure_nobody'"):
        AzureBlobArtifactStore(account_name="abc", container="abc", connection="azure_nobody").open()


def test_a_container_has_a_page_in_the_portal(values: AzureBlobArtifactStore) -> None:
    assert values.console_url(values.root()) == ""
    page = values.overridden({"resource_group": "ml"}).console_url(f"{values.root()}/runs/a")
    account = f"%2Fsubscriptions%2F{SUBSCRIPTION}%2FresourceGroups%2Fml%2Fproviders%2FMicrosoft.Storage"
    assert page.startswith("https://portal.azure.com/#view/Microsoft_Azure_Storage/ContainerMenuBlade/~/overview/")
    assert page.endswith(f"/storageAccountId/{account}%2FstorageAccounts%2F{ACCOUNT}/path/values")


USUAL = {"account_name": "team", "container": "values"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**USUAL, "account_name": "Team"}, "lower-case"),
        ({**USUAL, "account_name": "https://team.blob.core.windows.net"}, "give the account's name alone"),
        ({**USUAL, "account_name": "ab"}, "3 to 24"),
        ({**USUAL, "container": "Values"}, "lower-case"),
        ({**USUAL, "container": "values/team"}, "folders go into 'prefix'"),
        ({**USUAL, "container": "ab"}, "3 to 63"),
        ({**USUAL, "container": "a--b"}, "single hyphens"),
        ({**USUAL, "prefix": "/team"}, "give a folder"),
        ({**USUAL, "prefix": "team/../other"}, "give a folder"),
        ({**USUAL, "prefix": "team./other"}, "give a folder"),
        ({**USUAL, "endpoint": "storage:10000"}, "give a scheme and a host"),
        ({**USUAL, "endpoint": "https://team.blob.core.windows.net/?sig=x"}, "give a scheme and a host"),
        ({**USUAL, "conection": "x"}, "Did you mean 'connection'"),
        ({}, "this setting is required"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(StackError, match=said):
        where = "stepops.yaml: artifact_stores.values"
        component("artifact_stores", "values", {"flavor": "azure-blob", **settings}, where)


PARTS = st.text("abcXYZ019!_.*'()-", min_size=1, max_size=8).filter(lambda part: not part.endswith("."))


@pytest.fixture(scope="module")
def for_all(azure: EmulatedAzure) -> Iterator[str]:
    """Id of an Airflow connection."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_AZURE_FOR_ALL", azure.connection())
        yield "azure_for_all"


@given(prefix=st.lists(PARTS, max_size=4).map("/".join))
def test_any_folder_is_the_root_of_a_store(for_all: str, prefix: str) -> None:
    store = AzureBlobArtifactStore(account_name="team", container="abc", prefix=prefix, connection=for_all)
    root = "abfss://abc@team.dfs.core.windows.net"
    assert store.open().root == store.root() == "/".join([root, *([prefix] if prefix else [])])


def test_reading_the_flavors_imports_no_client() -> None:
    code = """
import sys
import airflow_stepops.clouds.azure.artifact_store
print(sorted({"azure", "azure.identity", "msal", "httpx", "airflow", "obstore"} & set(sys.modules)))
"""
    assert run(sys.executable, "-c", code) == "[]\n"
