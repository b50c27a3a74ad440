"""What of the code folder goes into the image, and what is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_stepops.errors import ConfigurationError, ContextError
from airflow_stepops.images.context import read_context


def write(root: Path, *names: str, content: str = "x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def names(root: Path) -> set[str]:
    return {entry.name for entry in read_context(root).entries}


def test_what_no_step_needs_stays_out_without_a_rule(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "pkg/b.py", "pkg/logs/c.txt", "x/airflow.cfg")
    write(
        tmp_path, ".git/HEAD", "pkg/__pycache__/b.cpython-311.pyc", "b.pyc", ".venv/bin/python", "js/node_modules/m.js"
    )
    write(tmp_path, "n/.ipynb_checkpoints/n.ipynb", "airflow.cfg", "airflow.db", "logs/dag/1.log")
    assert names(tmp_path) == {"a.py", "pkg/b.py", "pkg/logs/c.txt", "x/airflow.cfg"}


def test_stepopsignore_is_read_as_git_reads_its_rules(tmp_path: Path) -> None:
    write(
        tmp_path, "a.py", "data/a.csv", "data/keep.csv", "sub/data/b.csv", "sub/x.log", "sub/important.log", "build/y"
    )
    write(tmp_path, ".stepopsignore", content="data/*\n!data/keep.csv\n*.log\n!important.log\n/build/\n# comment\n")
    write(tmp_path, ".dockerignore", content="**\n")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text((tmp_path / ".stepopsignore").read_text())
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert names(tmp_path) == set(listed.stdout.split()) - {".stepopsignore", ".dockerignore"}
    assert names(tmp_path) == {".gitignore", "a.py", "data/keep.csv", "sub/data/b.csv", "sub/important.log"}


def test_dockerignore_is_read_as_docker_reads_its_rules(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "a.log", "sub/a.log", "data/x/a.csv", "data/keep.csv", "deep/er/tmp/z", "sub/tmp/z")
    write(tmp_path, ".dockerignore", content="# rules\n/*.log\ndata\n!data/keep.csv\n**/tmp/\n./a.py/\n!a.py\n")
    assert names(tmp_path) == {"a.py", "sub/a.log", "data/keep.csv"}


def test_stepopsignore_wins_over_dockerignore(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "b.py")
    write(tmp_path, ".dockerignore", content="a.py\n")
    write(tmp_path, ".stepopsignore", content="b.py\n")
    assert names(tmp_path) == {"a.py"}


def test_our_own_home_in_the_code_folder_stays_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.py", "stepops/cache/layer")
    monkeypatch.setenv("STEPOPS_HOME", str(tmp_path / "stepops"))
    assert names(tmp_path) == {"a.py"}


def test_the_digest_knows_names_contents_links_and_the_executable_bit_alone(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "b.sh")
    digests = [read_context(tmp_path).digest]
    os.utime(tmp_path / "a.py", (1, 1))
    (tmp_path / "a.py").chmod(0o600)
    assert read_context(tmp_path).digest == digests[0]
    for change in (
        lambda: (tmp_path / "b.sh").chmod(0o755),
        lambda: (tmp_path / "a.py").write_text("y"),
        lambda: (tmp_path / "a.py").rename(tmp_path / "c.py"),
        lambda: (tmp_path / "l").symlink_to("c.py"),
    ):
        change()
        digests.append(read_context(tmp_path).digest)
    assert len(set(digests)) == 5


def test_links_inside_the_folder_stay_links(tmp_path: Path) -> None:
    write(tmp_path, "real/a.py")
    (tmp_path / "real" / "b.py").symlink_to("a.py")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "real" / "a.py")
    links = {entry.name: entry.link for entry in read_context(tmp_path).entries}
    assert links == {"real/a.py": None, "real/b.py": "a.py", "folder": "real", "absolute": "real/a.py"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "../../../../../../etc", "real/../../outside"])
def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    write(tmp_path, "outside", "root/real/a.py")
    (root / "trick").symlink_to(target)
    with pytest.raises(ContextError, match=rf"trick is a link to {target}, outside of the code folder"):
        read_context(root)
    write(root, ".stepopsignore", content="trick\n")
    assert names(root) == {"real/a.py"}


def test_a_link_through_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(tmp_path, "outside/secret", "root/a.py")
    (root / "door").symlink_to(tmp_path / "outside")
    (root / "through").symlink_to("door/secret")
    write(root, ".stepopsignore", content="door\n")
    with pytest.raises(ContextError, match="through is a link to door/secret, outside"):
        read_context(root)


def test_links_in_a_circle_do_not_hang(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "here").symlink_to(".")
    assert names(tmp_path) == {"a", "b", "here"}


def test_pipes_and_sockets_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ContextError, match="pipe is a device, socket or pipe"):
        read_context(tmp_path)
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
        with pytest.raises(ContextError, match="sock is a device, socket or pipe"):
            read_context(tmp_path)


def test_a_name_that_deletes_files_in_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "pkg/.wh.a.py", "pkg/a.py")
    with pytest.raises(ContextError, match=r"pkg/\.wh\.a\.py: in an image such a name means"):
        read_context(tmp_path)


def test_a_huge_folder_is_refused_with_its_biggest_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPOPS_MAX_CONTEXT_MB", "5")
    write(tmp_path, "a.py")
    for number in range(7):
        write(tmp_path, f"data/{number}/x.bin")
        os.truncate(tmp_path / f"data/{number}/x.bin", (number + 1) * 10**6)
    with pytest.raises(ContextError) as caught:
        read_context(tmp_path)
    message = str(caught.value)
    assert "holds 28.0 MB and may hold 5.0 MB" in message
    assert "data/6 (7.0 MB), data/5 (6.0 MB), data/4 (5.0 MB), data/3 (4.0 MB), data/2 (3.0 MB)" in message
    assert "Add data/6 to .stepopsignore" in message
    write(tmp_path, ".stepopsignore", content="data/\n")
    assert names(tmp_path) == {"a.py"}


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_limit_that_is_no_number_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("STEPOPS_MAX_CONTEXT_MB", value)
    with pytest.raises(ConfigurationError, match=f"max_context_mb = '{value}'"):
        read_context(tmp_path)


def test_a_file_that_is_always_written_to_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "growing.log"
    file.write_bytes(b"x" * (8 << 20))
    stop = threading.Event()

    def grow() -> None:
        with file.open("ab", buffering=0) as out:
            while not stop.is_set():
                out.write(b"y")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(ContextError, match=r"growing\.log changes while it is read.*stepopsignore"):
            read_context(tmp_path)
    finally:
        stop.set()
        writer.join()


@contextmanager
def as_somebody_else(folder: Path) -> Iterator[None]:
    """Root may read everything, so become another user for the block."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "closed/b.py")
    (tmp_path / "a.py").chmod(0)
    with as_somebody_else(tmp_path), pytest.raises(ContextError, match=r"a\.py cannot be read: Permission denied"):
        read_context(tmp_path)
    (tmp_path / "a.py").chmod(0o644)
    (tmp_path / "closed").chmod(0)
    with as_somebody_else(tmp_path), pytest.raises(ContextError, match=r"closed/? cannot be read: Permission denied"):
        read_context(tmp_path)
    (tmp_path / "closed").chmod(0o755)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="nowhere is not a folder"):
        read_context(tmp_path / "nowhere")


def test_folders_that_steps_write_into_are_not_part_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text("")
    (tmp_path / "out" / "values").mkdir(parents=True)
    before = read_context(tmp_path, [tmp_path / "out" / "values"]).digest
    (tmp_path / "out" / "values" / "new").write_text("x")
    assert read_context(tmp_path, [tmp_path / "out" / "values"]).digest == before
    assert read_context(tmp_path).digest != before
