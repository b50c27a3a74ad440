"""A folder in the OCI image layout, as our repository and as other tools read it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_stepops.errors import DigestMismatchError, RegistryError
from airflow_stepops.images.manifests import OCI
from airflow_stepops.images.registry.blobs import BytesBlob, FileBlob, digest_of
from airflow_stepops.images.registry.layout import LayoutRepository
from tests.engines import run
from tests.images.conftest import Build


@pytest.fixture
def layout(tmp_path: Path) -> LayoutRepository:
    return LayoutRepository(tmp_path / "images")


def test_blobs_come_back_and_are_written_once(layout: LayoutRepository) -> None:
    blob = BytesBlob.of(b"content" * 1000)
    assert not layout.has_blob(blob.digest)
    assert layout.put_blob(blob) == 7000
    assert layout.put_blob(blob) == 0
    with layout.get_blob(blob.digest) as stream:
        assert stream.read() == blob.data


def test_wrong_bytes_are_neither_taken_nor_given(layout: LayoutRepository, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"other")
    with pytest.raises(DigestMismatchError, match=str(file)):
        layout.put_blob(FileBlob(digest_of(b"content"), 7, file))
    with pytest.raises(DigestMismatchError, match="blob for"):
        layout.put_blob(BytesBlob(digest_of(b"content"), 7, b"other"))
    assert list(layout.blob_path(digest_of(b"content")).parent.iterdir()) == []
    blob = BytesBlob.of(b"content")
    layout.put_blob(blob)
    layout.blob_path(blob.digest).write_bytes(b"damaged")
    with pytest.raises(DigestMismatchError, match="delete the image there"), layout.get_blob(blob.digest) as stream:
        stream.read()


def test_what_is_not_there_is_named(layout: LayoutRepository) -> None:
    assert layout.head_manifest("tag") is None
    assert layout.head_manifest(digest_of(b"x")) is None
    with pytest.raises(RegistryError, match="has no image tag"):
        layout.get_manifest("tag")
    with pytest.raises(RegistryError, match="has no blob sha256"):
        layout.get_blob(digest_of(b"x"))
    with pytest.raises(RegistryError, match="is not a digest"):
        layout.has_blob("sha256:../../../etc/passwd")


def test_a_tag_moves_and_the_old_image_stays(layout: LayoutRepository) -> None:
    manifests = [json.dumps({"mediaType": OCI.manifest, "n": n}).encode() for n in range(2)]
    digests = [layout.put_manifest("tag", OCI.manifest, manifest) for manifest in manifests]
    assert layout.head_manifest("tag") == digests[1]
    assert layout.get_manifest("tag") == (OCI.manifest, manifests[1])
    assert layout.get_manifest(digests[0]) == (OCI.manifest, manifests[0])
    assert layout.reference(digests[0]) == f"oci-layout:{layout.folder}@{digests[0]}"


def test_many_processes_write_and_no_tag_is_lost(layout: LayoutRepository) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from airflow_stepops.images.registry.layout import LayoutRepository\n"
        "layout = LayoutRepository(Path(sys.argv[1]))\n"
        "for n in range(20): layout.put_manifest(f'{sys.argv[2]}-{n}', 'x', f'{{\"n\":{n}}}'.encode())\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, layout.folder, str(number)]) for number in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert all(layout.head_manifest(f"{writer}-{n}") for writer in range(4) for n in range(20))


def test_an_index_that_is_not_one_is_an_error_that_says_what_to_do(layout: LayoutRepository) -> None:
    layout.folder.mkdir()
    (layout.folder / "index.json").write_text("{}")
    with pytest.raises(RegistryError, match="Delete the folder"):
        layout.head_manifest("tag")


def test_skopeo_reads_and_copies_our_images(layout: LayoutRepository, build: Build, tmp_path: Path) -> None:
    built = build(layout, None)
    source = f"oci:{layout.folder}:{built.tag}"
    inspected = json.loads(run("skopeo", "inspect", source))
    assert inspected["Digest"] == built.digest
    run("skopeo", "copy", "--quiet", source, f"oci:{tmp_path / 'copy'}:it")
    assert LayoutRepository(tmp_path / "copy").head_manifest("it") == built.digest
