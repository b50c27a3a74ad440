"""Requirements: what is taken, what is refused, and the layer that uv makes of them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.errors import ContextError, RequirementsError
from airflow_stepops.images.cache import ImageCache
from airflow_stepops.images.contents import requirements_layer, runtime_layer
from airflow_stepops.images.layers import Layer
from airflow_stepops.images.plan import Machine
from airflow_stepops.images.requirements import mask, read_requirements

AMD64 = Machine("linux/amd64", "3.12")
ARM64 = Machine("linux/arm64", "3.12")


def read(given: list[str] | str, root: Path = Path("/nowhere")) -> tuple[str, ...]:
    return read_requirements(given, root / "dag.py", root)


def content(layer: Layer) -> dict[str, bytes]:
    """Return the files of a layer by path below /opt/stepops."""
    with tarfile.open(layer.path) as tar:
        return {m.name.removeprefix("opt/stepops/"): tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]


def make(lines: list[str], machine: Machine, tmp_path: Path) -> Layer:
    return requirements_layer(ImageCache(tmp_path / "cache"), read(lines), machine, tmp_path)


def test_requirements_and_index_options_are_taken() -> None:
    lines = [
        "pandas>=2.2,<3",
        "torch==2.7.*; platform_machine == 'x86_64'",
        "httpx[cli,http2]==0.28.1  # a comment",
        "pkg @ https://example.com/pkg-1.0-py3-none-any.whl",
        "idna==3.10 --hash=sha256:" + "ab" * 32,
        "--index-url https://index.example.com/simple",
        "--extra-index-url=https://more.example.com/simple",
        "",
    ]
    assert len(read(lines)) == len(lines) - 1
    assert read(lines)[2] == "httpx[cli,http2]==0.28.1"


@pytest.mark.parametrize(
    "line",
    ["../../x", "./pkg", "/opt/pkg", ".", "~/pkg", "-e .", "-e git+https://x/y", "--editable=.", "file:///opt/pkg",
     "pkg @ file:///opt/pkg", "pkg@file:///opt/pkg", "dist/pkg-1.0-py3-none-any.whl", "pkg-1.0.tar.gz"],
)  # fmt: skip
def test_what_is_on_this_machine_only_is_refused(line: str) -> None:
    with pytest.raises(
        RequirementsError, match=r"is on this machine only\. Code of your own goes into the code folder"
    ):
        read([line])


@pytest.mark.parametrize("line", ["pandas=2", "pandas >> 2", "two words", "==1.0", "pandas==", "a;b"])
def test_what_is_no_requirement_is_refused(line: str) -> None:
    with pytest.raises(RequirementsError, match="is not a requirement"):
        read([line])


@pytest.mark.parametrize(
    "line", ["--target /", "--python /bin/sh", "--no-binary :all:", "--index-urlx y", "-c limits.txt"]
)
def test_options_that_would_change_the_build_are_refused(line: str) -> None:
    with pytest.raises(RequirementsError, match=r"option .* does not work here"):
        read([line])


@given(st.text(max_size=30))
def test_any_text_is_a_requirement_or_a_clear_refusal(text: str) -> None:
    try:
        lines = read([text])
    except RequirementsError as error:
        assert "Image(requirements=…)" in str(error)
    else:
        assert len(lines) <= 1
        assert "\n" not in "".join(lines).strip()


def test_a_file_s_lines_includes_and_hashes_are_read(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_text(
        "# only a comment\nidna==3.10 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n"
    )
    (tmp_path / "requirements.txt").write_text("-r more/base.txt\n\npandas>=2  # comment\n--pre\n")
    lines = [" ".join(line.split()) for line in read("requirements.txt", tmp_path)]
    assert lines == ["idna==3.10 --hash=sha256:00 --hash=sha256:11", "pandas>=2", "--pre"]


def test_an_error_in_a_file_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("idna\n\n-e .\n")
    with pytest.raises(RequirementsError, match=r"requirements\.txt, line 3: '-e \.'"):
        read("requirements.txt", tmp_path)
    (tmp_path / "requirements.txt").write_text("idna\n-r ../../etc/passwd\n")
    with pytest.raises(ContextError, match=r"line 2: '\.\./\.\./etc/passwd' is outside of the code folder"):
        read("requirements.txt", tmp_path)
    (tmp_path / "requirements.txt").write_text("-r requirements.txt\n")
    with pytest.raises(RequirementsError, match="includes itself"):
        read("requirements.txt", tmp_path)


def test_credentials_in_urls_are_masked() -> None:
    assert mask("--index-url https://user:pass@host/simple") == "--index-url https://***@host/simple"
    with pytest.raises(RequirementsError) as caught:
        read(["--bad https://user:s3cret@host/simple"])
    assert "s3cret" not in str(caught.value)


def test_wheels_are_those_of_the_image_s_platform(tmp_path: Path) -> None:
    machines = {machine: content(make(["markupsafe==3.0.2"], machine, tmp_path)) for machine in (AMD64, ARM64)}
    for machine, code in ((AMD64, 62), (ARM64, 183)):
        (library,) = [name for name in machines[machine] if name.endswith(".so")]
        assert "cpython-312" in library
        assert int.from_bytes(machines[machine][library][18:20], "little") == code


def test_nothing_of_this_machine_is_in_the_layer(tmp_path: Path) -> None:
    files = content(make(["httpx[cli]==0.28.1"], AMD64, tmp_path))
    assert files["requirements/bin/httpx"].startswith(b"#!/usr/bin/env python\n")
    assert not [name for name in files if "__pycache__" in name or name.endswith(".lock")]
    places = [str(tmp_path).encode(), os.fsencode(os.path.realpath("/proc/self/exe")), b"/.venv/"]
    assert not [name for name, data in files.items() if any(place in data for place in places)]


def test_every_record_fits_its_files(tmp_path: Path) -> None:
    files = content(make(["httpx[cli]==0.28.1"], AMD64, tmp_path))
    checked = 0
    for name in [name for name in files if name.endswith(".dist-info/RECORD")]:
        for path, digest, size in csv.reader(io.StringIO(files[name].decode())):
            if digest:
                data = files["requirements/" + path.removeprefix("../../")]
                hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert (digest, int(size)) == (f"sha256={hashed}", len(data)), path
                checked += 1
    assert checked > 100


def test_two_builds_make_the_same_layer_and_the_cache_saves_a_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["markupsafe==3.0.2", "idna==3.10"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    layers = [make(lines, AMD64, tmp_path / name) for name in ("a", "b")]
    assert layers[0].digest == layers[1].digest
    assert layers[0].diff_id == layers[1].diff_id
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    assert make(lines, AMD64, tmp_path / "a") == layers[0]
    with pytest.raises(RequirementsError):
        make([*lines, "packaging==25.0"], AMD64, tmp_path / "a")


def test_a_package_without_a_wheel_names_the_other_ways(tmp_path: Path) -> None:
    with pytest.raises(RequirementsError) as caught:
        make(["pyspark==3.5.0"], AMD64, tmp_path)
    message = str(caught.value)
    assert "pyspark" in message
    assert "no usable wheels" in message or "no wheels" in message
    assert all(name in message for name in ("docker builder", "dockerfile=", "apt_packages=", "Image(uri=…)"))


def test_versions_that_do_not_exist_are_said_in_uv_s_words(tmp_path: Path) -> None:
    with pytest.raises(RequirementsError, match=r"there is no version of idna==0\.0\.999") as caught:
        make(["idna==0.0.999"], AMD64, tmp_path)
    assert "linux/amd64, Python 3.12" in str(caught.value)


def test_a_password_of_an_index_is_in_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(RequirementsError) as caught:
        make(["--index-url http://user:s3cret@127.0.0.1:9/simple", "idna==3.10"], AMD64, tmp_path)
    assert "127.0.0.1" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_index_settings_of_uv_are_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    (tmp_path / "uv.toml").write_text('[[index]]\nurl = "http://127.0.0.1:9/of-uv-toml"\ndefault = true\n')
    with pytest.raises(RequirementsError, match="of-uv-toml"):
        make(["idna==3.10"], AMD64, tmp_path)


def test_a_platform_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequirementsError, match=r"no image for platform 'linux/s390x'.*linux/amd64, linux/arm64"):
        make(["idna"], Machine("linux/s390x", "3.12"), tmp_path)


def test_the_runtime_layer_holds_what_runs_a_step_and_no_more(tmp_path: Path) -> None:
    files = content(runtime_layer(ImageCache(tmp_path / "cache"), ARM64))
    ours = {
        name.removeprefix("runtime/airflow_stepops/") for name in files if name.startswith("runtime/airflow_stepops/")
    }
    assert {"__init__.py", "errors.py", "options.py", "py.typed", "dag.py", "runtime/spec.py"} <= ours
    assert all(name.split("/")[0] in ("runtime", "artifacts") or "/" not in name for name in ours)
    assert files["runtime/airflow_stepops/dag.py"] == files["runtime/airflow_stepops/runtime/steps.py"]
    others = {name.split("/")[1] for name in files} - {"airflow_stepops"}
    assert {name.split("-")[0] for name in others} == {
        "blake3",
        "cloudpickle",
        "obstore",
        "typing_extensions",
        "typing_extensions.py",
    }
