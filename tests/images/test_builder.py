"""From a step's image options to an image in a registry that engines run."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_stepops.errors import ContextError, ImageError, RegistryError, RequirementsError
from airflow_stepops.images.manifests import DOCKER, OCI, OCI_INDEX, host_platform
from airflow_stepops.images.registry.blobs import digest_of
from airflow_stepops.images.registry.client import RegistryClient
from airflow_stepops.images.registry.layout import LayoutRepository
from tests.engines import Podman, push_base, run, running_registry
from tests.images.conftest import Build
from tests.images.faults import FaultyProxy


def inspect(reference: str) -> dict[str, Any]:
    """What skopeo says of the config of an image."""
    return dict(json.loads(run("skopeo", "inspect", "--config", "--tls-verify=false", f"docker://{reference}")))


def test_an_unchanged_image_costs_exactly_one_request(
    build: Build, repository: RegistryClient, base_image: str, proxy: FaultyProxy
) -> None:
    first = build(repository, base_image)
    assert not first.reused
    through = RegistryClient(f"{proxy.host}/{repository.path}")
    again = build(through, base_image)
    assert (again.digest, again.reused, again.requests, again.uploaded_bytes) == (first.digest, True, 1, 0)
    assert [(seen.method, seen.path) for seen in proxy.seen] == [
        ("HEAD", f"/v2/{repository.path}/manifests/{again.tag}")
    ]


def test_a_fresh_worker_with_a_pinned_base_needs_one_request_and_no_installer(
    build: Build, repository: RegistryClient, base_image: str, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(repository, base_image, requirements=["cloudpickle==3.1.1"])
    monkeypatch.setenv("STEPOPS_HOME", str(fresh_home / "of another worker"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(fresh_home / "empty"))
    again = build(repository, base_image, requirements=["cloudpickle==3.1.1"])
    assert (again.digest, again.requests) == (first.digest, 1)


def test_an_edit_sends_the_code_and_the_config_alone(
    build: Build, repository: RegistryClient, base_image: str, project: Path
) -> None:
    first = build(repository, base_image)
    (project / "steps.py").write_text("ANSWER = 43\n")
    edited = build(repository, base_image)
    assert edited.digest != first.digest
    assert edited.uploaded_blobs == 2
    assert edited.uploaded_bytes < 10_000


def test_podman_pulls_and_runs_the_image(
    build: Build, repository: RegistryClient, base_image: str, podman: Podman, project: Path
) -> None:
    (project / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (project / "run.sh").chmod(0o755)
    built = build(repository, base_image, requirements=["httpx[cli]==0.28.1"])
    code = (
        "import airflow_stepops.dag, cloudpickle, httpx, json, obstore, os, steps, sys\n"
        "print(json.dumps([steps.ANSWER, httpx.__version__, httpx.__file__, os.getcwd(), 'airflow' in sys.modules]))"
    )
    podman.run("pull", "--quiet", built.reference)
    out = podman.run("run", "--rm", built.reference, "python", "-c", code)
    assert json.loads(out) == [42, "0.28.1", "/opt/stepops/requirements/httpx/__init__.py", "/opt/stepops/code", False]
    assert "Usage: httpx" in podman.run("run", "--rm", built.reference, "httpx", "--help")
    assert podman.run("run", "--rm", built.reference, "./run.sh") == "ran\n"


def test_skopeo_sees_our_layers_on_the_base(build: Build, repository: RegistryClient, base_image: str) -> None:
    built = build(repository, base_image)
    config, base = inspect(built.reference), inspect(base_image)
    assert config["architecture"] == base["architecture"]
    assert config["rootfs"]["diff_ids"][:-3] == base["rootfs"]["diff_ids"]
    created = [entry["created_by"] for entry in config["history"][-3:]]
    assert created == [f"airflow-stepops: {name} layer" for name in ("requirements", "runtime", "code")]
    ours, under = config["config"], base["config"]
    assert ours["Cmd"] == ["python", "-m", "airflow_stepops.runtime"]
    assert "Entrypoint" not in ours
    assert set(under["Env"]) - set(ours["Env"]) == {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_the_image_is_of_its_base_s_family(
    build: Build, repository: RegistryClient, registry: str, podman: Podman, docker: bool
) -> None:
    base = push_base(registry, f"base-{docker}".lower(), docker=docker)
    built = build(repository, base)
    media_type, manifest = repository.get_manifest(built.digest)
    family = DOCKER if docker else OCI
    assert media_type == family.manifest
    document = json.loads(manifest)
    assert document["config"]["mediaType"] == family.config
    assert {layer["mediaType"] for layer in document["layers"]} == {family.layer}
    podman.run("pull", "--quiet", built.reference)
    assert podman.run("run", "--rm", built.reference, "python", "-c", "import steps; print(steps.ANSWER)") == "42\n"


def test_a_base_in_the_same_registry_is_mounted(build: Build, repository: RegistryClient, base_image: str) -> None:
    base = RegistryClient(base_image.partition("@")[0])
    layers = json.loads(base.get_manifest(base_image.partition("@")[2])[1])["layers"]
    assert all(repository.mount_blob(layer["digest"], base.path) for layer in layers)
    other = repository.sibling(f"{repository.path}/other")
    built = build(other, base_image)
    assert built.uploaded_bytes < sum(layer["size"] for layer in layers)


def test_a_base_of_another_registry_is_copied_once(
    build: Build, base_image: str, tmp_path: Path, project: Path
) -> None:
    with running_registry(tmp_path / "other") as host:
        repository = RegistryClient(f"{host}/x")
        first = build(repository, base_image)
        assert first.uploaded_bytes > 20_000_000
        run(
            "skopeo",
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            f"docker://{first.reference}",
            f"oci:{tmp_path}/copy:it",
        )
        (project / "steps.py").write_text("ANSWER = 43\n")
        assert build(repository, base_image).uploaded_blobs == 2


def test_a_base_s_damaged_layer_ends_in_an_error_and_no_tag(
    build: Build, base_image: str, tmp_path: Path, proxy: FaultyProxy
) -> None:
    proxy.add("damage_answer", "GET", "/blobs/", times=1000)
    path, _, digest = base_image.partition("/")[2].partition("@")
    with running_registry(tmp_path / "other") as host:
        repository = RegistryClient(f"{host}/x")
        with pytest.raises(RegistryError, match="damaged on the way"):
            build(repository, f"{proxy.host}/{path}@{digest}")
        assert "stepops-" not in httpx.get(f"http://{host}/v2/x/tags/list").text


def test_a_registry_that_fails_all_along_the_way_gets_the_whole_image(
    build: Build, repository: RegistryClient, base_image: str, proxy: FaultyProxy, podman: Podman
) -> None:
    faults = [
        proxy.add(kind, method)
        for method in ("HEAD", "POST", "PUT")
        for kind in ("status", "reset", "cut_request", "lose_answer")
    ]
    built = build(RegistryClient(f"{proxy.host}/{repository.path}"), base_image)
    assert all(fault.hit for fault in faults)
    reference = repository.reference(built.digest)
    podman.run("pull", "--quiet", reference)
    assert podman.run("run", "--rm", reference, "python", "-c", "import steps; print(steps.ANSWER)") == "42\n"


def test_the_right_platform_is_taken_from_an_index(build: Build, registry: str, base_image: str) -> None:
    name, _, digest = base_image.partition("@")
    repository = RegistryClient(name)
    media_type, manifest = repository.get_manifest(digest)
    system, _, architecture = host_platform().partition("/")
    described = {"mediaType": media_type, "digest": digest, "size": len(manifest)}
    other = {**described, "platform": {"os": "linux", "architecture": "s390x"}}
    attestation = {**described, "platform": {"os": "unknown", "architecture": "unknown"}}
    entries = [attestation, other, {**described, "platform": {"os": system, "architecture": architecture}}]

    def push(tag: str, manifests: list[dict[str, object]]) -> str:
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()
        return f"{name}@{repository.put_manifest(tag, OCI_INDEX, index)}"

    target = RegistryClient(f"{registry}/tests/{uuid.uuid4().hex}")
    assert build(target, push("all", entries)).uploaded_blobs > 0
    with pytest.raises(ImageError, match=r"has no image for linux/\w+; it has linux/s390x\. Choose one"):
        build(target, push("few", [attestation, other]))


def test_a_base_for_another_platform_is_refused(build: Build, repository: RegistryClient, base_image: str) -> None:
    wrong = "linux/arm64" if host_platform() == "linux/amd64" else "linux/amd64"
    with pytest.raises(ImageError, match=rf"is for {host_platform()}, and the image is for {wrong}"):
        build(repository, base_image, platform=wrong)


def test_a_base_with_another_python_is_refused(build: Build, repository: RegistryClient, base_image: str) -> None:
    with pytest.raises(ImageError, match=r"has Python 3\.11\.2, .*for Python 3\.12\. Set Image\(python='3\.11'\)"):
        build(repository, base_image, python="3.12")


def test_a_tag_of_a_base_is_looked_up_once_an_hour(
    build: Build, repository: RegistryClient, registry: str, fresh_home: Path, proxy: FaultyProxy
) -> None:
    name = f"tagged-{uuid.uuid4().hex}"
    push_base(registry, name)
    first = build(repository, f"{proxy.host}/{name}")
    assert proxy.count("HEAD", f"{name}/manifests/latest") == 1
    again = build(repository, f"{proxy.host}/{name}:latest")
    assert proxy.count("HEAD", f"{name}/manifests/latest") == 1
    assert (again.digest, again.requests) == (first.digest, 1)


@pytest.mark.parametrize("damage", [("PYTHON_VERSION", "PYTHON_VERSIOM"), ("digest", "digesT"), ("[", "{")])
def test_what_this_machine_remembers_of_a_base_and_was_damaged_is_fetched_again(
    build: Build, registry: str, base_image: str, fresh_home: Path, damage: tuple[str, str]
) -> None:
    first = build(RegistryClient(f"{registry}/tests/{uuid.uuid4().hex}"), base_image)
    (remembered,) = [path for path in (fresh_home / "cache" / "bases").iterdir() if "PYTHON" in path.read_text()]
    whole = remembered.read_text()
    remembered.write_text(whole.replace(*damage))
    again = build(RegistryClient(f"{registry}/tests/{uuid.uuid4().hex}"), base_image)
    assert again.digest == first.digest
    assert remembered.read_text() == whole


def test_a_base_that_is_not_there_is_named(build: Build, repository: RegistryClient, registry: str) -> None:
    with pytest.raises(ImageError, match=rf"there is no base image {registry}/nothing:v1: check its name and tag"):
        build(repository, f"{registry}/nothing:v1")
    with pytest.raises(ImageError, match="is not the name of an image"):
        build(repository, "../../etc/passwd")


def test_a_finished_image_is_used_as_it_is(build: Build, repository: RegistryClient, project: Path) -> None:
    digest = digest_of(b"x")
    built = build(repository, "ignored", uri=f"host/team/image@{digest}")
    assert (built.reference, built.digest, built.requests) == (f"host/team/image@{digest}", digest, 0)
    assert build(repository, "ignored", uri="host/team/image:v1").digest == ""


def test_without_a_base_the_layers_alone_are_an_image(build: Build, tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path / "images")
    built = build(layout, None)
    document = json.loads(layout.get_manifest(built.digest)[1])
    assert len(document["layers"]) == 3
    assert built.reference == f"oci-layout:{tmp_path}/images@{built.digest}"
    # What is said of the machine has no effect where there is none, so that a step moves between operators unchanged.
    same = build(layout, None, base="host/x:1", python="3.10", apt_packages=["git"], platform="linux/arm64")
    assert (same.digest, same.reused) == (built.digest, True)


def test_an_image_with_a_base_goes_into_a_folder_too(build: Build, base_image: str, tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path / "images")
    built = build(layout, base_image)
    inspected = json.loads(run("skopeo", "inspect", f"oci:{layout.folder}:{built.tag}"))
    assert len(inspected["Layers"]) > 3


def test_requirements_of_a_file_beside_the_dag(build: Build, tmp_path: Path, project: Path) -> None:
    (project / "common.txt").write_text("idna==3.10  # pinned\n")
    (project / "dags" / "requirements.txt").write_text("-r ../common.txt\ncloudpickle==3.1.1\n")
    layout = LayoutRepository(tmp_path / "images")
    built = build(layout, None, requirements="requirements.txt")
    config = json.loads(layout.get_manifest(built.digest)[1])
    assert build(layout, None, requirements=["idna==3.10", "cloudpickle==3.1.1"]).digest == built.digest
    assert len(config["layers"]) == 3
    with pytest.raises(ContextError, match=r"'../../outside.txt' is outside of the code folder"):
        build(layout, None, requirements="../../outside.txt")
    with pytest.raises(ContextError, match=r"there is no file .*dags/missing\.txt"):
        build(layout, None, requirements="missing.txt")


@pytest.mark.parametrize("attempt", range(3))
def test_many_tasks_build_the_same_image_at_once(
    build: Build, repository: RegistryClient, base_image: str, fresh_home: Path, attempt: int
) -> None:
    digests: list[str] = []

    def one() -> None:
        digests.append(build(RegistryClient(repository.name), base_image, requirements=["idna==3.10"]).digest)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 6
    assert len(set(digests)) == 1


def test_a_requirement_that_cannot_be_installed_pushes_nothing(
    build: Build, repository: RegistryClient, base_image: str, proxy: FaultyProxy
) -> None:
    through = RegistryClient(f"{proxy.host}/{repository.path}")
    with pytest.raises(RequirementsError, match="surely-not-a-package"):
        build(through, base_image, requirements=["surely-not-a-package-of-anyone==1.0"])
    assert proxy.count("PUT") == proxy.count("POST") == 0
