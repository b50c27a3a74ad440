"""Equal content makes equal bytes, and every tar reader understands them."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_stepops.errors import ContextError
from airflow_stepops.images.layers import Entry, Layer, write_layer

_segment = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30),
    st.binary(min_size=1, max_size=20).map(lambda raw: os.fsdecode(raw.replace(b"/", b"x").replace(b"\0", b"x"))),
    st.text("ab-. ", min_size=100, max_size=160),
).filter(lambda name: name not in (".", ".."))
_names = st.lists(_segment, min_size=1, max_size=4).map("/".join)


def layer(entries: list[Entry], tmp_path: Path, name: str = "layer") -> Layer:
    return write_layer(entries, tmp_path / name)


def data(name: str, content: bytes, executable: bool = False) -> Entry:
    return Entry(name, content, len(content), executable)


@settings(max_examples=60, deadline=None)
@given(files=st.dictionaries(_names.map(lambda name: f"opt/{name}"), st.binary(max_size=2000), max_size=6))
def test_any_names_and_contents_come_back_from_the_tar(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    # A path cannot be a file and the folder of another file.
    files = {name: content for name, content in files.items() if not any(o.startswith(f"{name}/") for o in files)}
    folder = tmp_path_factory.mktemp("layer")
    packed = layer([data(name, content) for name, content in files.items()], folder)
    with tarfile.open(packed.path, errors="surrogateescape", encoding="utf-8") as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
        assert all(member.mtime == 0 and member.uid == member.gid == 0 and not member.uname for member in tar)
    assert found == files


def test_digests_are_those_of_the_bytes_before_and_after_compression(tmp_path: Path) -> None:
    big = os.urandom(9 << 20)
    packed = layer([data("a/big", big), data("a/small", b"x" * 5_000_000)], tmp_path)
    content = packed.path.read_bytes()
    assert packed.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert packed.size == len(content)
    assert packed.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(content)).hexdigest()}"


def test_the_order_of_entries_and_the_threads_change_no_byte(tmp_path: Path) -> None:
    entries = [data(f"d/{number % 7}/{number}", os.urandom(400_000)) for number in range(40)]
    digests = {layer(order, tmp_path).digest for order in (entries, entries[::-1], entries, sorted(entries, key=id))}
    assert len(digests) == 1


def test_gnu_tar_lists_folders_links_and_modes(tmp_path: Path) -> None:
    packed = layer([data("x/run", b"#!", executable=True), data("x/a b", b""), Entry("x/link", link="run")], tmp_path)
    listed = subprocess.run(
        ["tar", "tvzf", packed.path], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["drwxr-xr-x", "-rw-r--r--", "lrwxr-xr-x", "-rwxr-xr-x"]
    assert [line.split(maxsplit=5)[5] for line in listed] == ["x/", "x/a b", "x/link -> run", "x/run"]


def test_an_empty_layer_still_has_its_folders(tmp_path: Path) -> None:
    packed = write_layer([], tmp_path / "layer", ["opt/stepops/code"])
    with tarfile.open(packed.path) as tar:
        assert tar.getnames() == ["opt", "opt/stepops", "opt/stepops/code"]


@pytest.mark.parametrize("content", [b"longer than before", b"short"])
def test_a_file_that_is_not_what_was_listed_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(ContextError, match=r"file changed while it was packed.*stepopsignore"):
        layer([Entry("file", file, 10)], tmp_path)


def test_other_bytes_of_the_same_length_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    entry = Entry("file", file, 10, sha256=hashlib.sha256(b"0123456789").hexdigest())
    assert layer([entry], tmp_path).size > 0
    file.write_bytes(b"9876543210")
    with pytest.raises(ContextError, match="changed while it was packed"):
        layer([entry], tmp_path)
