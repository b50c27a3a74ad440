"""Our layers, unpacked for a step operator without containers."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def packed(*members: tarfile.TarInfo) -> bytes:
    """Return the tar of a requirements layer with some members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in ("opt", "opt/stepops", "opt/stepops/requirements"):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for info in members:
            tar.addfile(info, io.BytesIO(b"x" * min(info.size, 10)) if info.size < 11 else None)
    return buffer.getvalue()


def pushed(layout: LayoutRepository, tar: bytes, diff_id: str | None = None) -> str:
    """Push an image that looks like ours, with a tar as its requirements layer."""
    layer = BytesBlob.of(gzip.compress(tar, 1))
    diff_ids = [diff_id or digest_of(tar), *(digest_of(name.encode()) for name in LAYERS[1:])]
    config = BytesBlob.of(
        encode_json(
            {
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
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
        member(f"{INSIDE}/sparse", tarfile.GNUTYPE_SPARSE),
        member(f"{INSIDE}/.wh.numpy"),
        member(f"{INSIDE}/.wh..wh..opq"),
        member(f"{INSIDE}/link", tarfile.SYMTYPE, "inner/../../../../../etc"),
        member(f"{INSIDE}/link", tarfile.SYMTYPE, "inner/.."),
    ],
    ids=lambda info: f"{info.name} {info.linkname}",
)
def test_a_layer_that_is_not_ours_writes_nothing_outside(
    layout: LayoutRepository, tmp_path: Path, bad: tarfile.TarInfo
) -> None:
    assert_refused(layout, tmp_path, packed(bad), "not an image of ours")


def assert_refused(layout: LayoutRepository, tmp_path: Path, tar: bytes, said: str) -> None:
    digest = pushed(layout, tar)
    with pytest.raises(ImageError, match=said):
        unpack_layers(layout, digest, tmp_path / "unpacked")
    assert not list(tmp_path.rglob("escaped"))
    assert not [path for path in (tmp_path / "unpacked").iterdir() if path.is_dir()]


def test_nothing_is_written_through_a_link(layout: LayoutRepository, tmp_path: Path) -> None:
    # The name of the second link stays inside; the place that it is written to is nearer to the top.
    folders = [member(f"{INSIDE}/{name}", tarfile.DIRTYPE) for name in ("a", "a/b", "a/b/c", "s")]
    up = member(f"{INSIDE}/a/b/c/up", tarfile.SYMTYPE, "../../../s")
    out = member(f"{INSIDE}/a/b/c/up/out", tarfile.SYMTYPE, "../../../../escaped")
    assert_refused(layout, tmp_path, packed(*folders, up, out), "through a link")
    assert_refused(layout, tmp_path, packed(*folders, up, member(f"{INSIDE}/a/b/c/up/file")), "through a link")


def test_a_file_that_the_disk_has_no_room_for_is_refused_before_it_is_written(
    layout: LayoutRepository, tmp_path: Path
) -> None:
    huge = member(f"{INSIDE}/huge")
    huge.size = 1 << 60
    assert_refused(layout, tmp_path, packed(huge), "has no room for it")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([member(f"{INSIDE}/twice"), member(f"{INSIDE}/twice")], "File exists"),
        ([member(f"{INSIDE}/file"), member(f"{INSIDE}/file/below")], "cannot be unpacked"),
        ([member(f"{INSIDE}/{'n' * 300}")], "File name too long"),
    ],
)
def test_a_layer_that_no_folder_can_hold_is_refused(
    layout: LayoutRepository, tmp_path: Path, members: list[tarfile.TarInfo], said: str
) -> None:
    assert_refused(layout, tmp_path, packed(*members), said)


def test_a_layer_that_is_not_what_its_image_says_takes_no_other_layer_s_place(
    build: Build, layout: LayoutRepository, tmp_path: Path
) -> None:
    built = build(layout, None, requirements=["idna==3.10"])
    with layout.get_blob(json.loads(layout.get_manifest(built.digest)[1])["config"]["digest"]) as stream:
        ours = json.loads(stream.read())["rootfs"]["diff_ids"][0]
    forged = pushed(layout, packed(member(f"{INSIDE}/sitecustomize.py")), ours)
    with pytest.raises(DigestMismatchError, match=f"decompressed: the bytes are .*, not {ours}"):
        unpack_layers(layout, forged, tmp_path / "unpacked")
    layers = unpack_layers(layout, built.digest, tmp_path / "unpacked")
    assert (layers.requirements / "idna").is_dir()
    assert not (layers.requirements / "sitecustomize.py").exists()


TAR = packed(
    member(f"{INSIDE}/module.py"),
    member(f"{INSIDE}/{'long/' * 30}module.py"),
    member(f"{INSIDE}/ü.py"),
    member(f"{INSIDE}/link", tarfile.SYMTYPE, "module.py"),
)


@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(TAR) - 1), st.binary(min_size=1, max_size=12)), min_size=1, max_size=6
    ),
    length=st.integers(0, len(TAR)) | st.just(len(TAR)),
)
@settings(max_examples=60)
def test_any_tar_is_unpacked_inside_or_refused(
    changes: list[tuple[int, bytes]], length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tar = bytearray(TAR)
    for place, data in changes:
        tar[place : place + len(data)] = data
    _unpack_somewhere(bytes(tar[:length]), tmp_path_factory.mktemp("any"))


PARTS = st.sampled_from(["..", ".", "", "a", "b", "a\0b", ".wh.a", "ü", "n" * 300, "\udc80"])
NAMES = (
    st.lists(PARTS, min_size=1, max_size=5)
    .map("/".join)
    .flatmap(lambda name: st.sampled_from([name, f"{INSIDE}/{name}", f"/{name}"]))
)
KINDS = [getattr(tarfile, name) for name in dir(tarfile) if name.endswith("TYPE") and name.isupper()]


@given(data=st.data())
@settings(max_examples=60)
def test_any_header_with_a_right_checksum_is_unpacked_inside_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    members = []
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(NAMES)
        kind = data.draw(st.sampled_from(KINDS))
        found = member(name, kind, data.draw(NAMES))
        found.size = data.draw(st.sampled_from([0, 1, 1 << 40, 1 << 70])) if kind == tarfile.REGTYPE else 0
        members.append(found)
    try:
        tar = packed(*members)
    except (ValueError, OverflowError, UnicodeEncodeError):
        return
    _unpack_somewhere(tar, tmp_path_factory.mktemp("any"))


def _unpack_somewhere(tar: bytes, folder: Path) -> None:
    layout = LayoutRepository(folder / "images")
    with contextlib.suppress(ImageError):
        unpack_layers(layout, pushed(layout, tar), folder / "unpacked")
    beside = {path.name for path in folder.iterdir()}
    assert beside <= {"images", "unpacked"}
    for path in (folder / "unpacked").rglob("*"):
        assert path.resolve().is_relative_to(folder / "unpacked")


@given(st.binary(max_size=400))
def test_any_bytes_in_a_layer_s_place_are_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        layout = LayoutRepository(Path(name) / "images")
        digest = pushed(layout, TAR)
        layer = json.loads(layout.get_manifest(digest)[1])["layers"][0]["digest"]
        layout.blob_path(layer).write_bytes(data)
        with pytest.raises(ImageError, match=layer.removeprefix("sha256:")):
            unpack_layers(layout, digest, Path(name) / "unpacked")


def test_an_image_without_our_layers_is_refused(layout: LayoutRepository, tmp_path: Path) -> None:
    digest = push_config(layout)
    with pytest.raises(ImageError, match="has no layers of airflow-stepops"):
        unpack_layers(layout, digest, tmp_path / "unpacked")
    with pytest.raises(ImageError, match="has no digest"):
        unpack_layers(layout, "host/team/image:v1", tmp_path / "unpacked")
