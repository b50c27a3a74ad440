"""What a machine remembers of images."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from airflow_stepops.errors import DigestMismatchError
from airflow_stepops.images.cache import ImageCache
from airflow_stepops.images.layers import Entry, Layer, write_layer
from airflow_stepops.images.registry.layout import LayoutRepository


def make(path: Path) -> Layer:
    return write_layer([Entry("a", b"content", 7)], path)


def never(path: Path) -> Layer:
    raise AssertionError(f"made {path} again")


def test_a_layer_is_made_once(tmp_path: Path) -> None:
    made = ImageCache(tmp_path).layer("key", make)
    assert made.path.stat().st_size == made.size
    assert ImageCache(tmp_path).layer("key", never) == made


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 10), lambda path: path.unlink()])
def test_a_layer_whose_file_is_not_whole_is_made_again(tmp_path: Path, damage: object) -> None:
    made = ImageCache(tmp_path).layer("key", make)
    damage(made.path)  # type: ignore[operator]
    assert ImageCache(tmp_path).layer("key", make) == made
    assert made.path.stat().st_size == made.size


def test_a_layer_with_one_flipped_bit_is_an_error_that_names_its_file_and_is_made_again(tmp_path: Path) -> None:
    made = ImageCache(tmp_path).layer("key", make)
    data = bytearray(made.path.read_bytes())
    data[len(data) // 2] ^= 1
    made.path.write_bytes(data)
    repository = LayoutRepository(tmp_path / "images")
    with pytest.raises(DigestMismatchError, match=str(made.path)):
        repository.put_blob(ImageCache(tmp_path).layer("key", never))
    assert not repository.has_blob(made.digest)
    assert repository.put_blob(ImageCache(tmp_path).layer("key", make)) == made.size


@pytest.mark.parametrize("facts", ["[]", "3", '{"digest": 3, "size": "x"}', "[" * 100_000, "\x00"])
def test_what_is_remembered_of_a_layer_may_be_anything(tmp_path: Path, facts: str) -> None:
    made = ImageCache(tmp_path).layer("key", make)
    (tmp_path / "packed" / "key.json").write_text(facts)
    assert ImageCache(tmp_path).layer("key", make) == made


def test_a_layer_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="again"):
        ImageCache(tmp_path).layer("key", never)
    assert ImageCache(tmp_path).layer("key", make).size > 0


def test_layers_that_nobody_used_for_two_weeks_are_deleted(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    old, used = cache.layer("old", make), cache.layer("used", make)
    long_ago = time.time() - 15 * 24 * 3600
    for layer in (old, used):
        os.utime(layer.path, (long_ago, long_ago))
    cache.layer("used", never)
    cache.layer("new", make)
    assert not old.path.exists()
    assert used.path.exists()


def test_facts_are_forgotten_after_their_time(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    cache.write("bases/x.json", ["digest"])
    assert cache.read("bases/x.json", max_age=60) == ["digest"]
    os.utime(tmp_path / "bases" / "x.json", (1, 1))
    assert cache.read("bases/x.json", max_age=60) is None
    assert cache.read("bases/x.json") == ["digest"]
    (tmp_path / "bases" / "x.json").write_text("{damaged")
    assert cache.read("bases/x.json") is None
