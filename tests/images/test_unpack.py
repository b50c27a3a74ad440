"""Our layers, unpacked for a step operator without containers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from airflow_stepops.errors import DigestMismatchError, ImageError
from airflow_stepops.images.manifests import OCI, encode_json
from airflow_stepops.images.plan import LAYERS, history_of
from airflow_stepops.images.registry.blobs import BytesBlob, digest_of
from airflow_stepops.images.registry.layout import LayoutRepository
from airflow_stepops.images.unpack import unpack_layers
from tests.images.conftest import Build, push_config


@pytest.fixture
def layout(tmp_path: Path) -> LayoutRepository:
    return LayoutRepository(tmp_path / "images")


def test_a_bare_python_runs_the_layers(build: Build, layout: LayoutRepository, tmp_path: Path, project: Path) -> None:
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "link").symlink_to("steps.py")
    built = build(layout, None, requirements=["idna==3.10"])
    layers = unpack_layers(layout, built.reference, tmp_path / "unpacked")
    path = f"{layers.code}:{layers.requirements}:{layers.runtime}"
    code = "import idna, steps, obstore, airflow_stepops.dag; print(steps.ANSWER, idna.__version__)"
    command = [sys._base_executable, "-S", "-c", code]
    environment = {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "42 3.10\n", done.stderr
    assert (layers.code / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (layers.code / "link").readlink() == Path("steps.py")


def test_what_is_unpacked_is_used_again(build: Build, layout: LayoutRepository, tmp_path: Path, project: Path) -> None:
    first = unpack_layers(layout, build(layout, None).digest, tmp_path / "unpacked")
    (project / "steps.py").write_text("ANSWER = 43\n")
    digest = build(layout, None).digest
    second = unpack_layers(layout, digest, tmp_path / "unpacked")
    assert second.runtime == first.runtime
    assert second.requirements == first.requirements
    assert second.code != first.code
    for blob in (layout.folder / "blobs" / "sha256").iterdir():
        if blob.stat().st_size > 10_000:
            blob.unlink()
    assert unpack_layers(layout, digest, tmp_path / "unpacked") == second


def test_many_at_once_unpack_once(build: Build, layout: LayoutRepository, tmp_path: Path) -> None:
    digest = build(layout, None).digest
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(unpack_layers(layout, digest, tmp_path / "unpacked")))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 5
    assert all(layers == found[0] for layers in found)
    assert not [path for path in (tmp_path / "unpacked").iterdir() if path.name.startswith(".unpacking")]


def test_a_damaged_layer_leaves_nothing_behind(build: Build, layout: LayoutRepository, tmp_path: Path) -> None:
    digest = build(layout, None).digest
    code = json.loads(layout.get_manifest(digest)[1])["layers"][-1]["digest"]
    with layout.blob_path(code).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xee")
    with pytest.raises((DigestMismatchError, ImageError)):
        unpack_layers(layout, digest, tmp_path / "unpacked")
    unpacked = [path for path in (tmp_path / "unpacked").iterdir() if path.is_dir()]
    assert len(unpacked) == 2


def evil(layout: LayoutRepository, member: tarfile.TarInfo, *before: tarfile.TarInfo) -> str:
    """Push an image that looks like ours, whose requirements layer holds a bad member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for folder in ("opt", "opt/stepops", "opt/stepops/requirements"):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for info in (*before, member):
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    layer = BytesBlob.of(buffer.getvalue())
    config = BytesBlob.of(
        encode_json(
            {
                "rootfs": {"type": "layers", "diff_ids": [digest_of(name.encode()) for name in LAYERS]},
                "history": [{"created_by": history_of(name)} for name in LAYERS],
            }
        )
    )
    for blob in (layer, config):
        layout.put_blob(blob)
    described = [{"mediaType": OCI.layer, "digest": layer.digest, "size": layer.size}] * 3
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "config": {"mediaType": OCI.config, "digest": config.digest, "size": config.size},
        "layers": described,
    }
    return layout.put_manifest("evil", OCI.manifest, encode_json(manifest))


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
    return info


INSIDE = "opt/stepops/requirements"


@pytest.mark.parametrize(
    "bad",
    [
        member("../escaped"),
        member("/etc/cron.d/escaped"),
        member(f"{INSIDE}/../../../../escaped"),
        member("opt/stepops/code/other-layer.py"),
        member(f"{INSIDE}/link", tarfile.SYMTYPE, "/etc"),
        member(f"{INSIDE}/link", tarfile.SYMTYPE, "../../../../etc"),
        member(f"{INSIDE}/hard", tarfile.LNKTYPE, f"{INSIDE}/x"),
        member(f"{INSIDE}/device", tarfile.CHRTYPE),
        member(f"{INSIDE}/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name} {info.linkname}",
)
def test_a_layer_that_is_not_ours_writes_nothing_outside(
    layout: LayoutRepository, tmp_path: Path, bad: tarfile.TarInfo
) -> None:
    digest = evil(layout, bad)
    with pytest.raises(ImageError, match="not an image of ours"):
        unpack_layers(layout, digest, tmp_path / "unpacked")
    assert not list(tmp_path.rglob("escaped"))
    assert not [path for path in (tmp_path / "unpacked").iterdir() if path.is_dir()]


def test_an_image_without_our_layers_is_refused(layout: LayoutRepository, tmp_path: Path) -> None:
    digest = push_config(layout)
    with pytest.raises(ImageError, match="has no layers of airflow-stepops"):
        unpack_layers(layout, digest, tmp_path / "unpacked")
    with pytest.raises(ImageError, match="has no digest"):
        unpack_layers(layout, "host/team/image:v1", tmp_path / "unpacked")
