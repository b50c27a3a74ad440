"""The docker builder: bases by a real engine, pushed by our own client, built again only when they change."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.clouds.docker.image_builder import DockerImageBuilder
from airflow_stepops.clouds.local.image_builder import OciImageBuilder
from airflow_stepops.errors import BuildEngineError, ContextError, ImageError
from airflow_stepops.images.dockerfile import copied_sources
from airflow_stepops.images.registry.client import RegistryClient
from tests.engines import Podman
from tests.images.conftest import Build
from tests.images.faults import FaultyProxy


@pytest.fixture
def engine(podman: Podman) -> DockerImageBuilder:
    return DockerImageBuilder(docker_host=podman.socket)


def test_a_dockerfile_makes_the_base_and_an_edit_does_not_build_it_again(
    build: Build,
    repository: RegistryClient,
    base_image: str,
    engine: DockerImageBuilder,
    podman: Podman,
    project: Path,
    proxy: FaultyProxy,
) -> None:
    (project / "hello.txt").write_text("hello\n")
    (project / "Dockerfile").write_text(f"FROM {base_image}\nCOPY hello.txt /hello.txt\nENV WHO=me\nRUN id -u > /ran\n")
    options = {"dockerfile": "../Dockerfile", "builder": engine}
    first = build(repository, "unused", **options)
    podman.run("pull", "--quiet", first.reference)
    code = "import os, steps; print(open('/hello.txt').read().strip(), os.environ['WHO'], open('/ran').read().strip())"
    assert podman.run("run", "--rm", first.reference, "python", "-c", code) == "hello me 0\n"

    nowhere = DockerImageBuilder(docker_host="unix:///nowhere.sock")
    through = RegistryClient(f"{proxy.host}/{repository.path}")
    again = build(through, "unused", dockerfile="../Dockerfile", builder=nowhere)
    assert (again.digest, again.requests) == (first.digest, 1)
    (project / "steps.py").write_text("ANSWER = 43\n")
    assert build(repository, "unused", dockerfile="../Dockerfile", builder=nowhere).uploaded_blobs == 2
    (project / "hello.txt").write_text("changed\n")
    with pytest.raises(BuildEngineError, match=r"no container engine answers at unix:///nowhere\.sock"):
        build(repository, "unused", dockerfile="../Dockerfile", builder=nowhere)
    changed = build(repository, "unused", **options)
    podman.run("pull", "--quiet", changed.reference)
    assert podman.run("run", "--rm", changed.reference, "cat", "/hello.txt") == "changed\n"


def test_debian_packages_are_installed_into_the_base(
    build: Build, repository: RegistryClient, base_image: str, engine: DockerImageBuilder, podman: Podman
) -> None:
    built = build(repository, base_image, apt_packages=["tree"], builder=engine)
    podman.run("pull", "--quiet", built.reference)
    assert "steps.py" in podman.run("run", "--rm", built.reference, "tree", "/opt/stepops/code")
    assert build(repository, base_image, apt_packages=["tree"], builder=engine).requests == 1


def test_a_build_that_fails_shows_the_end_of_its_output(
    build: Build, repository: RegistryClient, base_image: str, engine: DockerImageBuilder, project: Path
) -> None:
    (project / "dags" / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo the reason why && exit 3\n")
    with pytest.raises(BuildEngineError, match=r"(?s)could not be built.*end of the build's output.*the reason why"):
        build(repository, "unused", dockerfile="Dockerfile", builder=engine)


def test_ignored_files_are_not_in_the_engine_s_context(
    build: Build, repository: RegistryClient, base_image: str, engine: DockerImageBuilder, podman: Podman, project: Path
) -> None:
    (project / "secret.env").write_text("PASSWORD=x")
    (project / ".stepopsignore").write_text("*.env\n")
    (project / "Dockerfile").write_text(f"FROM {base_image}\nCOPY . /all\n")
    built = build(repository, "unused", dockerfile="../Dockerfile", builder=engine)
    podman.run("pull", "--quiet", built.reference)
    listed = podman.run("run", "--rm", built.reference, "ls", "-A", "/all").split()
    assert "steps.py" in listed
    assert "secret.env" not in listed


def test_no_engine_is_an_error_that_says_what_to_start(
    build: Build, repository: RegistryClient, base_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(BuildEngineError, match=r"no container engine answers at tcp://127\.0\.0\.1:9\. Start Docker"):
        build(repository, base_image, apt_packages=["git"], builder=DockerImageBuilder())
    for without in (None, OciImageBuilder()):
        with pytest.raises(BuildEngineError, match=r"Image\(apt_packages=…\) needs a container engine"):
            build(repository, base_image, apt_packages=["git"], builder=without)


def test_a_dockerfile_must_be_in_the_code_folder(
    build: Build, repository: RegistryClient, engine: DockerImageBuilder
) -> None:
    with pytest.raises(ContextError, match=r"'\.\./\.\./Dockerfile' is outside of the code folder"):
        build(repository, "unused", dockerfile="../../Dockerfile", builder=engine)


@pytest.mark.parametrize("package", ["git; rm -rf /", "$(id)", "../x", "Git", "", "--purge", "a b"])
def test_only_names_of_packages_are_taken(
    build: Build, repository: RegistryClient, base_image: str, engine: DockerImageBuilder, package: str
) -> None:
    with pytest.raises(ImageError, match="is not a Debian package"):
        build(repository, base_image, apt_packages=[package], builder=engine)


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM x", set()),
        ("FROM x\nCOPY a.txt b.txt /", {"a.txt", "b.txt"}),
        ('FROM x\nCOPY ["a b.txt", "/"]', {"a b.txt"}),
        ("FROM x\nCOPY --chown=1:1 --chmod=755 ./bin/ /bin", {"bin"}),
        ("FROM x\nadd /conf/*.toml /etc/", {"conf/*.toml"}),
        ("FROM x AS y\nFROM z\nCOPY --from=y /a /a", set()),
        ("FROM x\nADD https://example.com/a.tgz /a", set()),
        ("FROM x\n# COPY secret /\nRUN echo \\\n  # COPY . /\n  COPY", set()),
        ("FROM x\nCOPY a \\\n  b \\\n  /dst/", {"a", "b"}),
        ("FROM x\nCOPY . /app", None),
        ("FROM x\nCOPY $FILES /app", None),
        ("FROM x\nCOPY <<EOF /a\nhello\nEOF", None),
        ("FROM x\nCOPY ../a /a", None),
        ("FROM x\nRUN --mount=type=bind,target=/src make", None),
        ("FROM x\nRUN --mount=target=/src make", None),
        ("FROM x\nRUN --mount=type=cache,target=/root/.cache pip install y", set()),
        ("FROM x\nONBUILD COPY a /", None),
    ],
)
def test_what_a_dockerfile_copies_is_known_or_taken_for_everything(dockerfile: str, expected: set[str] | None) -> None:
    assert copied_sources(dockerfile) == expected


@given(st.text(max_size=60))
def test_no_dockerfile_breaks_the_reader(text: str) -> None:
    found = copied_sources(text)
    assert found is None or all(isinstance(source, str) for source in found)
