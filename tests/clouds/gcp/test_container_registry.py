"""Container registries ``gar`` and ``gcr``: an emulated API for repositories, a CNCF registry for what is pushed."""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.clouds.gcp.artifact_registry import GoogleRepository
from airflow_stepops.clouds.gcp.container_registry import GarContainerRegistry, GcrContainerRegistry
from airflow_stepops.errors import RegistryAuthError, RegistryError, StackError
from airflow_stepops.images.registry.blobs import BytesBlob
from airflow_stepops.stacks.components import ContainerRegistryComponent
from airflow_stepops.stacks.flavors import component, component_from_document
from tests.clouds.gcp.artifact_registry import USER, ArtifactRegistry
from tests.clouds.gcp.conftest import Connect
from tests.clouds.gcp.emulated import PROJECT, EmulatedGcp, error
from tests.engines import run
from tests.images.conftest import push_config
from tests.images.faults import FaultyProxy

LOCATION = "europe-west4"
DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture
def of_registry(gcp: EmulatedGcp, connect: Connect, gar: FaultyProxy) -> str:
    """Id of an Airflow connection to the emulated Google Cloud and its registry."""
    return connect(api_endpoint_overrides={**gcp.overrides, "docker": f"http://{gar.host}"})


@pytest.fixture
def images(of_registry: str) -> GarContainerRegistry:
    """A repository of a name that is new."""
    return GarContainerRegistry(
        name="images", location=LOCATION, repository=f"r{uuid.uuid4().hex}", connection=of_registry
    )


def name_of(images: GarContainerRegistry) -> str:
    return f"projects/{PROJECT}/locations/{LOCATION}/repositories/{images.repository}"


def test_an_image_that_is_pushed_is_what_others_pull(
    images: GarContainerRegistry, gcp: EmulatedGcp, gar: FaultyProxy
) -> None:
    digest = push_config(images.open())
    repository = images.open()
    assert repository.head_manifest("tag") == digest
    assert repository.reference(digest) == f"{gar.host}/{PROJECT}/{images.repository}/steps@{digest}"
    login = repository.login()
    assert login is not None
    assert login[0] == USER
    assert login[1] in gcp.tokens
    name = f"docker://{repository.name}:tag"
    inspected = run("skopeo", "inspect", "--raw", "--tls-verify=false", "--creds", ":".join(login), name)
    assert json.loads(inspected)["layers"] == []


def test_the_hosts_are_google_s_unless_the_connection_says_others(connection: str) -> None:
    gar = GarContainerRegistry(location="us", repository="team", image="a/b", connection=connection)
    assert gar.open().reference(DIGEST) == f"us-docker.pkg.dev/{PROJECT}/team/a/b@{DIGEST}"
    other = gar.overridden({"project": "example.com:other-project"})
    assert other.open().reference(DIGEST) == f"us-docker.pkg.dev/example.com/other-project/team/a/b@{DIGEST}"
    gcr = GcrContainerRegistry(host="eu.gcr.io", connection=connection)
    assert gcr.open().reference(DIGEST) == f"eu.gcr.io/{PROJECT}/steps@{DIGEST}"


@pytest.mark.parametrize(
    ("registry", "opens"),
    [
        ("us-docker.pkg.dev", True),
        ("europe-west4-docker.pkg.dev", True),
        ("gcr.io", True),
        ("eu.gcr.io", True),
        ("mirror.gcr.io", False),
        ("docker.io", False),
        ("gcr.io.example.com", False),
        ("us-docker.pkg.dev.example.com", False),
        ("us-docker.pkg.dev:8080", False),
    ],
)
def test_the_login_is_for_bases_in_registries_of_google_and_in_no_others(
    registry: str, opens: bool, images: GarContainerRegistry, gar: FaultyProxy
) -> None:
    repository = images.open()
    assert isinstance(repository, GoogleRepository)
    login = repository.login_for(registry)
    assert (login is not None) is opens
    assert login is None or login() == repository.login()
    assert repository.login_for(gar.host) is not None


def test_one_token_serves_all_that_is_opened(images: GarContainerRegistry, gcp: EmulatedGcp) -> None:
    before = len(gcp.grants)
    push_config(images.open())
    images.overridden({"image": "other"}).open().head_manifest("tag")
    assert gcp.grants[before:] == ["key"]


def test_a_token_whose_end_is_near_is_given_to_nobody_else(
    images: GarContainerRegistry, gcp: EmulatedGcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcp, "token_seconds", 60.0)
    repository = images.open()
    assert repository.login() != repository.login()


def test_a_token_that_is_revoked_during_a_push_is_renewed(
    images: GarContainerRegistry, gcp: EmulatedGcp, gar: FaultyProxy
) -> None:
    repository = images.open()
    push_config(repository)
    gcp.revoke()
    gar.add("status", "PATCH", status=401)
    blob = BytesBlob.of(os.urandom(6 << 20))
    before = len(gcp.grants)
    assert repository.put_blob(blob) == blob.size
    assert gcp.grants[before:] == ["key"]
    with repository.get_blob(blob.digest) as stream:
        assert stream.read() == blob.data


def test_threads_that_meet_a_revoked_token_renew_it_and_all_go_on(
    images: GarContainerRegistry, gcp: EmulatedGcp
) -> None:
    push_config(images.open())
    repository = images.open()
    gcp.revoke()
    blobs = [BytesBlob.of(os.urandom(1000)) for _ in range(6)]
    before, ready = len(gcp.grants), threading.Barrier(6, timeout=30)

    def put(blob: BytesBlob) -> int:
        ready.wait()
        return repository.put_blob(blob)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(put, blobs)) == [1000] * 6
    assert gcp.grants[before:] == ["key"]


def test_a_login_that_is_refused_for_good_is_said(
    images: GarContainerRegistry, gcp: EmulatedGcp, gar: FaultyProxy
) -> None:
    repository = images.open()
    push_config(repository)
    gar.add("status", "HEAD", times=100, status=403)
    with pytest.raises(RegistryAuthError, match="answers 403") as raised:
        repository.head_manifest("tag")
    assert not any(token in str(raised.value) for token in gcp.tokens)


def test_a_repository_that_is_missing_is_made_before_the_first_push(
    images: GarContainerRegistry, artifact_registry: ArtifactRegistry, gcp: EmulatedGcp
) -> None:
    assert images.open().head_manifest("tag") is None
    assert name_of(images) not in artifact_registry.repositories
    push_config(images.open())
    assert artifact_registry.repositories[name_of(images)]["format"] == "DOCKER"
    assert gcp.count("artifactregistry", "GET", "/operations/") > 0


def test_a_missing_repository_that_google_just_denies_is_made_all_the_same(
    images: GarContainerRegistry, gar: FaultyProxy, artifact_registry: ArtifactRegistry
) -> None:
    gar.add("status", "HEAD", "/manifests/", status=403, times=2)
    repository = images.open()
    assert repository.head_manifest("tag") is None
    push_config(repository)
    assert name_of(images) in artifact_registry.repositories


def test_a_repository_that_is_there_is_asked_about_once_for_all_that_is_pushed(
    images: GarContainerRegistry, artifact_registry: ArtifactRegistry, gcp: EmulatedGcp
) -> None:
    artifact_registry.repositories[name_of(images)] = {"format": "DOCKER"}
    before = gcp.count("artifactregistry")
    repository = images.overridden({"create_repository": False}).open()
    for text in (b"{}", b"[]"):
        push_config(repository, text)
    repository.head_manifest("tag")
    assert gcp.count("artifactregistry") - before == 1


def test_who_may_push_need_not_be_allowed_to_ask_about_repositories(
    images: GarContainerRegistry, artifact_registry: ArtifactRegistry, gcp: EmulatedGcp
) -> None:
    artifact_registry.repositories[name_of(images)] = {"format": "DOCKER"}
    plan = gcp.fail("artifactregistry", images.repository, 403, "PERMISSION_DENIED")
    digest = push_config(images.open())
    plan.times = 0
    assert images.open().head_manifest("tag") == digest


def test_a_missing_repository_that_may_not_be_made_is_said_before_a_byte_is_sent(
    images: GarContainerRegistry, gar: FaultyProxy
) -> None:
    said = f"no repository '{images.repository}' .*gcloud artifacts repositories create .*'create_repository: true'"
    with pytest.raises(RegistryError, match=said):
        push_config(images.overridden({"create_repository": False}).open())
    assert gar.count("POST") == gar.count("PUT") == 0


def test_a_repository_that_may_not_be_made_names_the_permission(images: GarContainerRegistry, gcp: EmulatedGcp) -> None:
    said = "Permission 'artifactregistry.repositories.create' denied on resource '//x' (or it may not exist)."
    plan = gcp.fail("artifactregistry", "/repositories", 403, "PERMISSION_DENIED", said, method="POST")
    allow = r"Allow artifactregistry\.repositories\.create to the service account or user"
    with pytest.raises(RegistryAuthError, match=allow):
        push_config(images.open())
    plan.times = 0


def test_workers_that_both_find_it_missing_both_make_it_and_neither_fails(
    images: GarContainerRegistry, artifact_registry: ArtifactRegistry, gcp: EmulatedGcp
) -> None:
    artifact_registry.repositories[name_of(images)] = {"format": "DOCKER"}
    missing = error(404, "NOT_FOUND", "Requested entity was not found.")
    gcp.answer_with("artifactregistry", images.repository, lambda: missing, method="GET", times=1)
    before = gcp.count("artifactregistry", "POST")
    assert images.open().head_manifest(push_config(images.open())) is not None
    assert gcp.count("artifactregistry", "POST") - before == 1


def test_an_api_that_is_away_for_a_moment_is_asked_again(images: GarContainerRegistry, gcp: EmulatedGcp) -> None:
    for method in ("GET", "POST"):
        gcp.fail("artifactregistry", "/repositories", 503, "UNAVAILABLE", method=method, times=1)
    assert images.open().head_manifest(push_config(images.open())) is not None


def test_a_repository_whose_making_fails_is_said(images: GarContainerRegistry, gcp: EmulatedGcp) -> None:
    failed = {"name": "projects/p/operations/o", "done": True, "error": {"code": 13, "message": "out of luck"}}
    plan = gcp.answer_with("artifactregistry", "/repositories$", lambda: (200, failed), method="POST")
    with pytest.raises(RegistryError, match=f"did not make repository '{images.repository}': out of luck"):
        push_config(images.open())
    plan.times = 0


def test_an_immutable_tag_that_names_the_same_image_is_no_error(images: GarContainerRegistry, gar: FaultyProxy) -> None:
    digest = push_config(images.open())
    refusing = gar.add("status", "PUT", "/manifests/tag", times=100, status=403)
    assert push_config(images.open()) == digest
    assert refusing.hit == 1
    with pytest.raises(RegistryError, match="answers 403"):
        push_config(images.open(), b'{"another": "image"}')
    assert images.open().head_manifest("tag") == digest


def test_what_google_refuses_is_an_error_of_the_registry(
    images: GarContainerRegistry, gcp: EmulatedGcp, monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    gone = connect(keyfile_dict=gcp.key("gone@x.iam.gserviceaccount.com"))
    monkeypatch.setattr(gcp, "disabled", {"gone@x.iam.gserviceaccount.com"})
    with pytest.raises(RegistryAuthError, match=r"does not take the credentials: .*account not found"):
        images.overridden({"connection": gone}).open().login()
    with pytest.raises(StackError, match="no Airflow connection 'gcp_nobody'"):
        images.overridden({"connection": "gcp_nobody"}).open()
    without = connect(keyfile_dict=gcp.key(project_id=None))
    with pytest.raises(StackError, match="no Google Cloud project is named: give 'project' in the stack"):
        images.overridden({"connection": without}).open()


def test_no_secret_is_in_documents_and_logs(
    images: GarContainerRegistry, gcp: EmulatedGcp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for logger in ("airflow_stepops", "httpx", "httpcore"):
        caplog.set_level("DEBUG", logger=logger)
    repository = images.open()
    push_config(repository)
    told = json.dumps([images.document(), repr(images), repr(vars(repository)), caplog.text])
    assert not any(secret in told for secret in (gcp.key()["private_key"], *gcp.tokens))
    assert component_from_document(ContainerRegistryComponent, images.document()) == images


def test_a_host_of_gcr_makes_its_repositories_itself(of_registry: str, gcp: EmulatedGcp, gar: FaultyProxy) -> None:
    before = gcp.count("artifactregistry")
    images = GcrContainerRegistry(name="images", image=f"i{uuid.uuid4().hex}", connection=of_registry)
    digest = push_config(images.open())
    assert images.open().head_manifest("tag") == digest
    assert images.open().path == f"{PROJECT}/{images.image}"
    assert gcp.count("artifactregistry") == before
    assert component_from_document(ContainerRegistryComponent, images.document()) == images


def test_images_have_a_page_in_the_console() -> None:
    page = "https://console.cloud.google.com/artifacts/docker"
    gar = GarContainerRegistry(location=LOCATION, repository="team")
    reference = f"{LOCATION}-docker.pkg.dev/{PROJECT}/team/a/b@{DIGEST}"
    assert gar.console_url(reference) == f"{page}/{PROJECT}/{LOCATION}/team/a%2Fb/{DIGEST}"
    gcr = GcrContainerRegistry(host="eu.gcr.io")
    assert gcr.console_url(f"eu.gcr.io/{PROJECT}/steps@{DIGEST}") == f"{page}/{PROJECT}/europe/eu.gcr.io/steps/{DIGEST}"
    assert gar.console_url(f"127.0.0.1:5000/{PROJECT}/team/steps@{DIGEST}") == ""


REPOSITORIES = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
IMAGES = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)?(/[a-z0-9]+)?", fullmatch=True).filter(lambda name: len(name) <= 80)


@given(project=st.from_regex(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", fullmatch=True), repository=REPOSITORIES, image=IMAGES)
def test_every_name_that_is_taken_fits_into_a_reference_and_has_a_page(
    project: str, repository: str, image: str
) -> None:
    settings = {"location": "northamerica-northeast1", "project": project, "repository": repository, "image": image}
    found = component("container_registries", "images", {"flavor": "gar", **settings}, "x")
    name = f"northamerica-northeast1-docker.pkg.dev/{project}/{repository}/{image}"
    assert len(name) <= 255
    assert isinstance(found, GarContainerRegistry)
    assert found.console_url(f"{name}@{DIGEST}").count(project) >= 1


@pytest.mark.parametrize(
    ("flavor", "settings", "said"),
    [
        ("gar", {}, "location: this setting is required"),
        ("gar", {"location": "europe-west4-docker.pkg.dev"}, "give a region or multi-region"),
        ("gar", {"location": "Europe"}, "give a region or multi-region"),
        ("gar", {"location": "us", "repository": "Team"}, "give the repository's id alone"),
        ("gar", {"location": "us", "repository": "team/steps"}, "the images' name goes into 'image'"),
        ("gar", {"location": "us", "repository": "r" * 64}, "at most 62"),
        ("gar", {"location": "us", "image": "a:b"}, "give a lower-case name"),
        ("gar", {"location": "us", "image": "i" * 81}, "at most 80 characters"),
        ("gar", {"location": "us", "project": "My Project"}, "give the project's id"),
        ("gar", {"location": "us", "create_repository": "yes"}, "create_repository"),
        ("gcr", {"host": "docker.io"}, "eu.gcr.io"),
        ("gcr", {"location": "us"}, "location"),
    ],
)
def test_settings_that_cannot_be_are_refused(flavor: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(StackError, match=re.escape(said)):
        component("container_registries", "images", {"flavor": flavor, **settings}, "stepops.yaml: x.images")
