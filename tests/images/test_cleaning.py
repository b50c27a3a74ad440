"""What killed builds leave, what grows, and what goes of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from airflow_stepops.images.cache import ImageCache
from airflow_stepops.images.contents import requirements_layer
from airflow_stepops.images.layers import Entry, Layer, write_layer
from airflow_stepops.images.plan import Machine
from tests.images.builds import build_and_unpack, ended, in_a_process, kill_at
from tests.stranger import as_stranger

DAY = 24 * 3600.0
GB = 10**9


def make(path: Path) -> Layer:
    return write_layer([Entry("a", b"content", 7)], path)


def age(path: Path, days: float) -> Path:
    """Set the times of a file, or of a folder and all that is in it, back."""
    for found in (path, *path.rglob("*")):
        os.utime(found, (time.time() - days * DAY,) * 2, follow_symlinks=False)
    return path


def left_in(cache: Path) -> list[str]:
    """Return what is in a cache that is not whole, or of a thing that nobody used for two weeks."""
    odd = ("unfinished", ".writing", ".discarded", ".unpacked", ".unpacking")
    found = [path for folder in cache.iterdir() for path in folder.iterdir()]
    used = {path.name.partition(".")[0] for path in found if path.lstat().st_mtime > time.time() - 14 * DAY}
    used.add("cleaning")
    return [
        path.name for path in found if any(name in path.name for name in odd) or path.name.partition(".")[0] not in used
    ]


@pytest.mark.parametrize(
    "moment",
    [
        "airflow_stepops.images.wheels._uv",
        "airflow_stepops.images.contents.entries_below",
        "airflow_stepops.images.layers._header:8",
        "pathlib.Path.replace",
        "airflow_stepops.images.cache.ImageCache.write",
        "json.dump",
        "airflow_stepops.images.registry.layout.check_digest",
        "airflow_stepops.images.unpack._extract:3",
        "pathlib.Path.rename",
        "shutil.rmtree",
    ],
)
def test_two_weeks_after_a_build_was_killed_a_new_one_works_and_what_it_left_is_gone(
    project: Path, fresh_home: Path, moment: str
) -> None:
    images = project.parent / "images"
    kill_at(moment, lambda: build_and_unpack(project, images))
    age(fresh_home, 15)
    (project / "steps.py").write_text("ANSWER = 43\n")
    assert (build_and_unpack(project, images) / "steps.py").read_text() == "ANSWER = 43\n"
    assert left_in(fresh_home / "cache") == []


def test_the_next_build_takes_away_at_once_what_its_predecessor_left(project: Path, fresh_home: Path) -> None:
    images = project.parent / "images"
    kill_at("airflow_stepops.images.contents.entries_below", lambda: build_and_unpack(project, images))
    assert left_in(fresh_home / "cache")
    build_and_unpack(project, images)
    assert left_in(fresh_home / "cache") == []


def test_any_leftover_goes_and_stops_no_build(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    for name in (".unpacked-x", "dead.unfinished", "folder", "bad.lock"):
        (packed / name / "inner").mkdir(parents=True)
        (packed / name / "inner" / "file").write_text("x")
    for name in ("old.unfinished", ".writing-x", "alone.lock", "alone.json"):
        (packed / name).write_text("x")
    (packed / "link").symlink_to("nowhere")
    age(packed, 15)
    ImageCache(tmp_path).layer("key", make)
    assert {path.name for path in packed.iterdir()} == {"key.tar.gz", "key.json", "key.lock", "cleaning.lock"}


def test_read_only_folders_go_as_well(strangers_folder: Path) -> None:
    code = """
import os, time
from pathlib import Path
from tests.images.test_cleaning import ImageCache, make
folder = Path.cwd() / "packed" / ".unpacked-x"
(folder / "inner" / "most").mkdir(parents=True)
(folder / "inner" / "most" / "file").write_text("x")
for path in (folder / "inner" / "most" / "file", folder / "inner" / "most", folder / "inner", folder):
    os.utime(path, (time.time() - 15 * 24 * 3600,) * 2)
    path.chmod(0o444 if path.is_file() else 0o555 if path != folder / "inner" / "most" else 0)
ImageCache(Path.cwd()).layer("key", make)
print(sorted(os.listdir("packed")))
"""
    done = as_stranger(["-c", code], strangers_folder)
    assert done.stdout == "['cleaning.lock', 'key.json', 'key.lock', 'key.tar.gz']\n", done.stderr


def test_what_another_process_makes_or_uses_stays(tmp_path: Path) -> None:
    cache, packed = ImageCache(tmp_path), tmp_path / "packed"
    old = cache.layer("old", make)
    (packed / "slow.unfinished").mkdir()
    age(packed, 15)
    with FileLock(packed / "old.lock"), FileLock(packed / "slow.lock"):
        cache.layer("new", make)
        assert old.path.exists()
        assert (packed / "slow.unfinished").exists()
    cache.layer("newer", make)
    assert not old.path.exists()
    assert not (packed / "slow.unfinished").exists()


def test_while_one_builder_cleans_the_others_build(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    old = cache.layer("old", make)
    age(tmp_path / "packed", 15)
    with FileLock(tmp_path / "packed" / "cleaning.lock"):
        cache.layer("new", make)
        assert old.path.exists()
    cache.layer("newer", make)
    assert not old.path.exists()


def test_nothing_is_looked_through_when_a_layer_is_there(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    cache.layer("key", make)
    old = cache.layer("old", make)
    os.utime(old.path, (0, 0))
    cache.layer("key", make)
    assert old.path.exists()


def test_what_is_too_much_goes_and_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    layers = [cache.layer(name, make) for name in ("third", "first", "second", "now")]
    for layer, days in zip(layers, (1, 3, 2, 0), strict=True):
        os.truncate(layer.path, 4 * GB)
        age(layer.path, days)
    cache.layer("new", make)
    assert [layer.path.exists() for layer in layers] == [True, False, False, True]
    assert sum(path.stat().st_size for path in (tmp_path / "packed").iterdir()) <= 10 * GB


def test_what_was_used_just_now_is_not_too_much(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    layers = [cache.layer(name, make) for name in ("a", "b", "c")]
    for layer in layers:
        os.truncate(layer.path, 6 * GB)
    cache.layer("new", make)
    assert all(layer.path.exists() for layer in layers)


def test_unpacked_layers_have_a_bound_too(tmp_path: Path) -> None:
    for name, days in (("older", 3), ("younger", 2)):
        file = tmp_path / "layers" / name / "opt" / "file"
        file.parent.mkdir(parents=True)
        file.touch()
        os.truncate(file, 6 * GB)
        age(tmp_path / "layers" / name, days)
    ImageCache(tmp_path).layer("new", make)
    assert not (tmp_path / "layers" / "older").exists()
    assert (tmp_path / "layers" / "younger").exists()


def test_many_builders_at_once_clean_without_an_error(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    for number in range(30):
        cache.layer(f"old-{number}", make)
    (tmp_path / "packed" / ".unpacked-x").mkdir()
    age(tmp_path / "packed", 15)
    started = [in_a_process(lambda: cache.layer(f"of-{os.getpid()}", make)) for _ in range(4)]
    assert [ended(pid) for pid in started] == [0] * 4
    names = {path.name for path in (tmp_path / "packed").iterdir()}
    assert not [name for name in names if name.startswith(("old-", "."))]
    assert len([name for name in names if name.endswith(".tar.gz")]) == 4


HERE = Machine("linux/amd64", "3.12")


def install(home: Path, directory: Path, line: str = "idna==3.10") -> None:
    requirements_layer(ImageCache(home), (line,), HERE, directory)


@pytest.fixture
def no_uv_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on which nobody has said where uv's cache is."""
    monkeypatch.delenv("UV_CACHE_DIR")


@pytest.mark.usefixtures("no_uv_settings")
def test_uv_s_cache_is_ours_and_bounded(tmp_path: Path) -> None:
    install(tmp_path / "home", tmp_path)
    wheels = tmp_path / "home" / "uv" / "wheels"
    assert list(wheels.glob("archive-*/*/idna"))
    os.truncate(_file(wheels / "huge"), 11 * GB)
    age(wheels.with_name("wheels.size"), 2)
    with FileLock(wheels.with_name("wheels.lock")):  # as another uv does
        ImageCache(tmp_path / "home").layer("key", make)
        assert (wheels / "huge").exists()
    age(wheels.with_name("wheels.size"), 2)
    install(tmp_path / "home", tmp_path, "idna==3.9")
    assert list(wheels.glob("archive-*/*/idna"))
    assert not (wheels / "huge").exists()
    age(wheels, 15)
    ImageCache(tmp_path / "home").layer("other", make)
    assert not wheels.exists()


@pytest.mark.usefixtures("no_uv_settings")
@pytest.mark.parametrize("how", ["variable", "uv.toml"])
def test_a_cache_of_uv_that_a_person_has_chosen_is_used_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    chosen = tmp_path / "chosen"
    if how == "variable":
        monkeypatch.setenv("UV_CACHE_DIR", str(chosen))
    else:
        (tmp_path / "uv.toml").write_text(f'cache-dir = "{chosen}"\n')
    _file(chosen / "old")
    age(chosen, 15)
    install(tmp_path / "home", tmp_path)
    assert list(chosen.glob("archive-*/*/idna"))
    assert (chosen / "old").exists()
    assert not (tmp_path / "home" / "uv").exists()


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path
