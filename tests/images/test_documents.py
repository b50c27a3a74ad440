"""The JSON documents of an image as anybody may have written them: they are read, or refused with a RegistryError."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.errors import DigestMismatchError, ImageError, RegistryError
from airflow_stepops.images.bases import read_image
from airflow_stepops.images.manifests import (
    DOCKER,
    OCI,
    OCI_INDEX,
    Manifest,
    encode_json,
    layer_config,
    read_config,
    select_platform,
)
from airflow_stepops.images.plan import LAYERS, environment, history_of
from airflow_stepops.images.registry.blobs import BytesBlob
from airflow_stepops.images.registry.layout import LayoutRepository
from airflow_stepops.images.unpack import unpack_layers

DIGEST = f"sha256:{'0' * 64}"
DESCRIPTOR: dict[str, Any] = {"mediaType": OCI.layer, "digest": DIGEST, "size": 3}
MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI.manifest,
    "config": {**DESCRIPTOR, "mediaType": OCI.config},
    "layers": [DESCRIPTOR],
}
CONFIG: dict[str, Any] = {
    "os": "linux",
    "architecture": "amd64",
    "config": {"Env": ["PATH=/bin", "PYTHON_VERSION=3.11.7"]},
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    "history": [{"created_by": "RUN"}, {"created_by": "ENV", "empty_layer": True}],
}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [
        {**DESCRIPTOR, "mediaType": OCI.manifest, "platform": {"os": "linux", "architecture": "amd64"}},
        {**DESCRIPTOR, "mediaType": OCI.manifest, "platform": {"os": "linux", "architecture": "arm64"}},
    ],
}

texts = st.text(max_size=8) | st.sampled_from([DIGEST, OCI.manifest, "linux", "PATH=/x", "latest"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything in a document, itself included."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, document: Any) -> bytes:
    """Draw a document in which something is something else, or is gone."""
    copy = json.loads(json.dumps(document))
    for path in draw(st.lists(st.sampled_from(places(document)), min_size=1, max_size=3)):
        if not path:
            continue
        try:
            parent = copy
            for key in path[:-1]:
                parent = parent[key]
            if draw(st.booleans()):
                parent[path[-1]] = draw(anything)
            else:
                del parent[path[-1]]
        except (KeyError, IndexError, TypeError):  # another change was faster
            continue
    return json.dumps(copy).encode()


def use_manifest(data: bytes) -> object:
    return Manifest.read(OCI.manifest, data, "it").to_json()


def use_index(data: bytes) -> object:
    return select_platform(data, "linux/arm64", "it")


def use_config(data: bytes) -> object:
    manifest = encode_json(MANIFEST)
    base = read_image("it", LayoutRepository(Path("nowhere")), OCI.manifest, manifest, data)
    return layer_config(base.config, [DIGEST], ["ours"], environment(base.environment), ["python"], "/opt")


READERS: dict[str, tuple[Callable[[bytes], object], Any]] = {
    "manifest": (use_manifest, MANIFEST),
    "index": (use_index, INDEX),
    "config": (use_config, CONFIG),
}
by_reader = pytest.mark.parametrize(("use", "document"), READERS.values(), ids=READERS.keys())


@by_reader
def test_a_document_as_it_must_be_is_read(use: Callable[[bytes], object], document: Any) -> None:
    assert use(encode_json(document))


@by_reader
@given(data=st.data())
def test_a_document_with_anything_anywhere_is_read_or_refused(
    use: Callable[[bytes], object], document: Any, data: st.DataObject
) -> None:
    try:
        use(data.draw(changed(document)))
    except ImageError as error:
        assert str(error).startswith("it")


@by_reader
@given(data=st.binary(max_size=200).filter(lambda data: b"{" not in data))
def test_bytes_that_are_no_document_are_refused(use: Callable[[bytes], object], document: Any, data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^it"):
        use(data)


@by_reader
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_document_in_another_encoding_is_refused(
    use: Callable[[bytes], object], document: Any, encoding: str
) -> None:
    with pytest.raises(RegistryError, match=r"^it(: config)? is not JSON"):
        use(json.dumps(document).encode(encoding))


@by_reader
@pytest.mark.parametrize("depth", [49, 60, 300, 480, 900, 980, 1_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_document_that_is_nested_deeply_is_refused(
    use: Callable[[bytes], object], document: Any, depth: int, opening: str, closing: str
) -> None:
    text = json.dumps({**document, "extra": 0}).replace('"extra": 0', f'"extra": {opening * depth}1{closing * depth}')
    with pytest.raises(RegistryError, match=r"^it.* (nested|recursion)"):
        use(text.encode())


def image_of(layout: LayoutRepository, config: bytes) -> str:
    """Push an image with a config whose three layers are one that is not there."""
    blob = BytesBlob.of(config)
    layout.put_blob(blob)
    described = {"mediaType": OCI.config, "digest": blob.digest, "size": blob.size}
    return layout.put_manifest(
        "it", OCI.manifest, encode_json({**MANIFEST, "config": described, "layers": [DESCRIPTOR] * 3})
    )


OURS = {
    **CONFIG,
    "rootfs": {"type": "layers", "diff_ids": [DIGEST] * 3},
    "history": [{"created_by": history_of(name)} for name in LAYERS],
}


@given(changed(OURS))
def test_an_image_with_any_config_is_unpacked_or_refused(config: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        layout = LayoutRepository(Path(folder) / "images")
        with pytest.raises(ImageError):  # at the latest, that its layer is not there
            unpack_layers(layout, image_of(layout, config), Path(folder) / "unpacked")


@given(changed({"schemaVersion": 2, "manifests": [{**DESCRIPTOR, "annotations": {"a": "b"}}]}) | st.binary(max_size=99))
def test_any_index_of_a_folder_is_read_or_refused(index: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        layout = LayoutRepository(Path(name))
        (Path(name) / "index.json").write_bytes(index)
        for use in (lambda: layout.head_manifest("latest"), lambda: image_of(layout, b"{}")):
            try:
                use()
            except RegistryError as error:
                assert str(Path(name) / "index.json") in str(error)


def test_a_config_larger_than_its_manifest_says_is_not_read_into_memory(tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path)
    blob = BytesBlob.of(b" " * 1_000_000 + b"{}")
    layout.put_blob(blob)
    config = {"mediaType": OCI.config, "digest": blob.digest, "size": 2}
    digest = layout.put_manifest("it", DOCKER.manifest, encode_json({**MANIFEST, "config": config}))
    with pytest.raises(RegistryError, match=f"{blob.digest} is no document of 2 bytes"):
        unpack_layers(layout, digest, tmp_path / "unpacked")


@pytest.mark.parametrize("which", ["manifest", "config"])
def test_one_flipped_bit_in_a_document_of_a_folder_is_refused_with_its_file(tmp_path: Path, which: str) -> None:
    layout = LayoutRepository(tmp_path / "images")
    digest = image_of(layout, encode_json(OURS))
    found = digest if which == "manifest" else json.loads(layout.get_manifest(digest)[1])["config"]["digest"]
    path = layout.blob_path(found)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestMismatchError, match=str(path)):
        unpack_layers(layout, digest, tmp_path / "unpacked")


def test_a_config_keeps_what_the_image_s_readers_need() -> None:
    assert read_config(encode_json(CONFIG), "it") == CONFIG
