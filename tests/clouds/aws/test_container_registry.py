"""Container registry ``ecr``: moto's ECR for logins and repositories, a CNCF registry for what is pushed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.clouds.aws.container_registry import EcrContainerRegistry
from airflow_stepops.clouds.aws.ecr import EcrRepository
from airflow_stepops.errors import RegistryAuthError, RegistryError, StackError
from airflow_stepops.images.registry.blobs import BytesBlob
from airflow_stepops.stacks.components import ContainerRegistryComponent
from airflow_stepops.stacks.flavors import component, component_from_document
from tests.clouds.aws.conftest import Connect
from tests.clouds.aws.emulated import ACCESS_KEY, SECRET_KEY, EmulatedAws
from tests.engines import run
from tests.images.conftest import push_config
from tests.images.faults import FaultyProxy

REAL = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.fixture
def images(ecr: FaultyProxy, connection: str) -> EcrContainerRegistry:
    """A registry with a repository of a name that is new."""
    return EcrContainerRegistry(
        name="images", uri=f"{ecr.host}/team", repository=f"r{uuid.uuid4().hex}", connection=connection
    )


def path_of(images: EcrContainerRegistry) -> str:
    return f"team/{images.repository}"


def test_an_image_that_is_pushed_is_what_others_pull(images: EcrContainerRegistry, aws: EmulatedAws) -> None:
    digest = push_config(images.open())
    repository = images.open()
    assert repository.head_manifest("tag") == digest
    assert repository.reference(digest) == f"{images.uri}/{images.repository}@{digest}"
    login = repository.login()
    assert login is not None
    assert login[0] == "AWS"
    name = f"docker://{repository.name}:tag"
    inspected = run("skopeo", "inspect", "--raw", "--tls-verify=false", "--creds", ":".join(login), name)
    assert json.loads(inspected)["layers"] == []
    assert aws.given.count(login[1]) == 1


def test_one_login_serves_all_that_is_opened_until_it_is_about_to_expire(
    images: EcrContainerRegistry, aws: EmulatedAws, ecr: FaultyProxy
) -> None:
    before = aws.count("GetAuthorizationToken")
    push_config(images.open())
    images.overridden({"repository": "stepops"}).open().head_manifest("tag")
    assert aws.count("GetAuthorizationToken") - before == 1
    assert not any(seen.headers.get("authorization") is None for seen in ecr.seen), "no request was made to be refused"


def test_a_base_in_a_registry_of_another_account_or_region_is_read_with_a_login_of_the_same_connection(
    images: EcrContainerRegistry, aws: EmulatedAws, ecr: FaultyProxy
) -> None:
    repository = images.open()
    assert isinstance(repository, EcrRepository)
    aws_s_own = repository.login_for("763104351884.dkr.ecr.us-west-2.amazonaws.com")
    assert aws_s_own is not None
    login = aws_s_own()
    assert login is not None
    assert login == ("AWS", aws.given[-1])
    assert repository.login_for(ecr.host) is not None
    assert repository.login_for("docker.io") is None
    assert repository.login_for("763104351884.dkr.ecr.us-west-2.amazonaws.com.example.com") is None


def test_a_login_whose_end_is_near_is_given_to_nobody_else(
    images: EcrContainerRegistry, aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws, "login_seconds", 60.0)
    before = aws.count("GetAuthorizationToken")
    for expected in (1, 2):
        images.open().head_manifest("tag")
        assert aws.count("GetAuthorizationToken") - before == expected


def test_a_login_that_expires_during_a_push_is_renewed(
    images: EcrContainerRegistry, aws: EmulatedAws, ecr: FaultyProxy
) -> None:
    repository = images.open()
    push_config(repository)
    aws.logins.clear()
    blob = BytesBlob.of(os.urandom(6 << 20))
    before = aws.count("GetAuthorizationToken")
    assert repository.put_blob(blob) == blob.size
    aws.logins.clear()
    assert push_config(repository, b'{"other": 1}') == repository.head_manifest("tag")
    assert aws.count("GetAuthorizationToken") - before == 2
    with repository.get_blob(blob.digest) as stream:
        assert stream.read() == blob.data


def test_threads_that_meet_an_expired_login_renew_it_and_all_go_on(
    images: EcrContainerRegistry, aws: EmulatedAws
) -> None:
    repository = images.open()
    push_config(repository)
    aws.logins.clear()
    blobs = [BytesBlob.of(os.urandom(1000)) for _ in range(6)]
    before, ready = aws.count("GetAuthorizationToken"), threading.Barrier(6, timeout=30)

    def put(blob: BytesBlob) -> int:
        ready.wait()
        return repository.put_blob(blob)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(put, blobs)) == [1000] * 6
    assert aws.count("GetAuthorizationToken") - before == 1


def test_a_login_that_is_refused_for_good_is_asked_for_once_more_and_then_said(
    images: EcrContainerRegistry, aws: EmulatedAws, ecr: FaultyProxy
) -> None:
    repository = images.open()
    repository.head_manifest("tag")
    ecr.add("status", "HEAD", times=100, status=403)
    before = aws.count("GetAuthorizationToken")
    with pytest.raises(RegistryAuthError, match="answers 403") as raised:
        repository.head_manifest("tag")
    assert aws.count("GetAuthorizationToken") - before == 1
    assert not any(password in str(raised.value) for password in aws.given)


def test_a_repository_that_is_missing_is_made_as_it_is_set(images: EcrContainerRegistry, aws: EmulatedAws) -> None:
    set_up = images.overridden({"scan_on_push": True, "immutable_tags": True, "kms_key": "alias/images"})
    assert set_up.open().head_manifest("tag") is None
    with pytest.raises(aws.client("ecr").exceptions.RepositoryNotFoundException):
        aws.client("ecr").describe_repositories(repositoryNames=[path_of(images)])
    push_config(set_up.open())
    made = aws.client("ecr").describe_repositories(repositoryNames=[path_of(images)])["repositories"][0]
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": "alias/images"}


def test_a_repository_that_is_there_is_used_without_a_call_of_the_ecr_api(
    images: EcrContainerRegistry, aws: EmulatedAws
) -> None:
    aws.client("ecr").create_repository(repositoryName=path_of(images))
    before = aws.count("CreateRepository")
    push_config(images.open())
    push_config(images.overridden({"create_repository": False}).open(), b"[]")
    assert aws.count("CreateRepository") == before


def test_a_missing_repository_that_may_not_be_made_is_said_before_a_byte_is_sent(
    images: EcrContainerRegistry, ecr: FaultyProxy
) -> None:
    repository = images.overridden({"create_repository": False}).open()
    with pytest.raises(RegistryError, match=f"no repository '{path_of(images)}': make it, .*'create_repository: true'"):
        push_config(repository)
    assert ecr.count("POST") == ecr.count("PUT") == 0


def test_a_repository_that_may_not_be_made_names_the_permission(images: EcrContainerRegistry, aws: EmulatedAws) -> None:
    said = "User: arn:aws:iam::123456789012:user/me is not authorized to perform: ecr:CreateRepository on resource: *"
    plan = aws.fail("CreateRepository", "AccessDeniedException", message=said)
    with pytest.raises(RegistryAuthError, match="Allow ecr:CreateRepository to the role or user"):
        push_config(images.open())
    plan.times = 0


def test_processes_that_make_the_repository_at_once_all_push(images: EcrContainerRegistry, aws: EmulatedAws) -> None:
    code = """
import json, sys
from airflow_stepops.stacks.components import ContainerRegistryComponent
from airflow_stepops.stacks.flavors import component_from_document
from tests.images.conftest import push_config
repository = component_from_document(ContainerRegistryComponent, json.loads(sys.argv[1])).open()
repository.login()
sys.stdin.readline()
print(push_config(repository))
"""
    command = [sys.executable, "-c", code, json.dumps(images.document())]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    before = aws.count("CreateRepository")
    said = []
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        said.append(process.communicate(timeout=60)[0].split()[-1])
        assert process.returncode == 0
    assert said == [images.open().head_manifest("tag")] * 2
    assert aws.count("CreateRepository") - before in (1, 2)


def test_workers_that_both_find_it_missing_both_make_it_and_neither_fails(images: EcrContainerRegistry) -> None:
    repository = images.open()
    assert isinstance(repository, EcrRepository)
    assert repository.new is not None
    for _ in range(2):
        repository.new.create()
    assert images.overridden({"create_repository": False}).open().put_blob(BytesBlob.of(b"x")) == 1


def test_an_immutable_tag_that_names_the_same_image_is_no_error(images: EcrContainerRegistry, ecr: FaultyProxy) -> None:
    immutable = images.overridden({"immutable_tags": True})
    digest = push_config(immutable.open())
    assert push_config(immutable.open()) == digest
    before = ecr.count("PUT", "/manifests/tag")
    with pytest.raises(RegistryError, match=r"400 \(TAG_INVALID: .*immutable"):
        push_config(immutable.open(), b'{"another": "image"}')
    assert ecr.count("PUT", "/manifests/tag") - before == 1, "it is not tried again"
    assert immutable.open().head_manifest("tag") == digest


def test_what_the_ecr_api_refuses_is_an_error_of_the_registry(
    images: EcrContainerRegistry, aws: EmulatedAws, connect: Connect
) -> None:
    plan = aws.fail("GetAuthorizationToken", "ThrottlingException")
    with pytest.raises(RegistryError, match=r"GetAuthorizationToken answers ThrottlingException.*Try again later"):
        images.open().head_manifest("tag")
    plan.times = 0
    without = images.overridden({"connection": connect(login=None, password=None)})
    with pytest.raises(RegistryAuthError, match="no AWS credentials"):
        without.open().head_manifest("tag")
    with pytest.raises(StackError, match="no Airflow connection 'aws_nobody'"):
        images.overridden({"connection": "aws_nobody"}).open().head_manifest("tag")


def test_no_secret_is_in_documents_and_logs(
    images: EcrContainerRegistry, aws: EmulatedAws, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for logger in ("airflow_stepops", "httpx", "httpcore"):  # boto's own DEBUG tells whole answers
        caplog.set_level("DEBUG", logger=logger)
    repository = images.open()
    push_config(repository)
    told = json.dumps([images.document(), repr(images), repr(vars(repository)), caplog.text])
    assert not any(secret in told for secret in (SECRET_KEY, ACCESS_KEY, *aws.given))
    assert component_from_document(ContainerRegistryComponent, images.document()) == images


def test_other_repositories_of_the_registry_are_read_with_the_same_login(images: EcrContainerRegistry) -> None:
    digest = push_config(images.open())
    other = images.overridden({"repository": "stepops"}).open()
    assert isinstance(other, EcrRepository)
    assert other.sibling(path_of(images)).head_manifest("tag") == digest


ACCOUNTS = st.integers(0, 10**12 - 1).map(lambda number: f"{number:012}")
DOMAINS = st.sampled_from(
    [
        "dkr.ecr.us-east-1.amazonaws.com",
        "dkr.ecr-fips.us-gov-west-1.amazonaws.com",
        "dkr.ecr.cn-north-1.amazonaws.com.cn",
        "dkr-ecr.eu-central-1.on.aws",
        "dkr.ecr.eusc-de-east-1.amazonaws.eu",
    ]
)
NAMES = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)?", fullmatch=True).filter(lambda name: len(name) < 15)


@given(account=ACCOUNTS, domain=DOMAINS, names=st.lists(NAMES, max_size=3), repository=NAMES)
def test_every_address_of_ecr_is_taken(account: str, domain: str, names: list[str], repository: str) -> None:
    host = f"{account}.{domain}"
    opened = EcrContainerRegistry(uri="/".join([host, *names]), repository=repository).open()
    assert (opened.registry, opened.path) == (host, "/".join([*names, repository]))


def test_another_account_s_registry_is_asked_to_make_the_repository(connection: str, aws: EmulatedAws) -> None:
    name = f"r{uuid.uuid4().hex}"
    registry = EcrContainerRegistry(uri=REAL.replace("1234", "9999", 1), repository=name, connection=connection)
    repository = registry.open()
    assert isinstance(repository, EcrRepository)
    assert repository.new is not None
    repository.new.create()
    made = aws.client("ecr").describe_repositories(repositoryNames=[name])["repositories"][0]
    assert made["registryId"] == "999956789012"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"uri": f"https://{REAL}"}, "without https://"),
        ({"uri": "public.ecr.aws/team"}, "other registries have the flavor 'generic'"),
        ({"uri": "12345.dkr.ecr.eu-central-1.amazonaws.com"}, "give the registry's host"),
        ({"uri": f"{REAL}.evil.example"}, "give the registry's host"),
        ({"uri": f"{REAL}/Team"}, "lower-case names"),
        ({"uri": f"{REAL}/"}, "lower-case names"),
        ({"uri": REAL, "repository": "a:b"}, "lower-case name"),
        ({"uri": REAL, "repository": "r" * 140}, "references of images would have 260 characters, and jobs take 255"),
        ({"uri": REAL, "create_repository": False, "scan_on_push": True}, "scan_on_push: no repository is made"),
        ({}, "uri: this setting is required"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(StackError, match=re.escape(said)):
        component("container_registries", "images", {"flavor": "ecr", **settings}, "stepops.yaml: x.images")


def test_the_longest_reference_that_jobs_take_is_taken() -> None:
    repository = "r" * (255 - len(f"{REAL}/@sha256:") - 64)
    opened = EcrContainerRegistry(uri=REAL, repository=repository).open()
    assert len(opened.reference(f"sha256:{'0' * 64}")) == 255
