"""Changing a stack file by command."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_stepops.errors import StackError
from airflow_stepops.stacks.document import read_document
from airflow_stepops.stacks.draft import Draft, editing

USUAL = """\
# Our stacks.
version: 1
active: prod   # what most DAGs use

step_operators:
  # small and cheap
  cpu:
    flavor: docker   # Podman on the CI machine
    network:  'host'
    extra:
      shm_size: 1g
      tmpfs: {/tmp: ''}
  # one GPU
  gpu: {flavor: docker}

  # here
  here:
    flavor: local
# stacks below
stacks:
  prod:
    artifact_store: local
    container_registry: local
    step_operators:
      - cpu   # the default
      - gpu
# the end
"""


def changed(text: str, *steps: tuple[Any, ...]) -> str:
    draft = Draft(text, "stepops.yaml")
    for verb, *arguments in steps:
        getattr(draft, verb)(*arguments)
    return draft.text()


def difference(before: str, after: str) -> tuple[list[str], list[str]]:
    """Return the lines that are gone and those that are new."""
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_a_changed_setting_is_one_changed_line_and_its_comment_stays() -> None:
    after = changed(USUAL, ("set", ("step_operators", "cpu", "flavor"), "local"))
    assert difference(USUAL, after) == (
        ["    flavor: docker   # Podman on the CI machine"],
        ["    flavor: local   # Podman on the CI machine"],
    )
    assert changed(USUAL, ("set", ("active",), "local")).splitlines()[2] == "active: local   # what most DAGs use"


def test_a_new_entry_comes_after_the_last_of_its_section() -> None:
    after = changed(USUAL, ("set", ("step_operators", "big"), {"flavor": "docker", "extra": {"devices": ["a", "b"]}}))
    start = after.index("  big:")
    assert after[start:].startswith("  big:\n    flavor: docker\n    extra:\n      devices: [a, b]\n# stacks below\n")
    assert after[:start] + after[after.index("# stacks below") :] == USUAL


def test_a_new_setting_comes_after_the_last_of_its_entry() -> None:
    after = changed(USUAL, ("set", ("step_operators", "here", "nice"), True))
    assert "    flavor: local\n    nice: true\n# stacks below" in after


def test_a_new_section_comes_at_the_end() -> None:
    after = changed(USUAL, ("set", ("artifact_stores", "s"), {"flavor": "local"}))
    assert after == USUAL.replace("# the end\n", "\nartifact_stores:\n  s:\n    flavor: local\n# the end\n")


def test_an_entry_in_braces_is_written_anew_and_all_else_stays() -> None:
    after = changed(USUAL, ("set", ("step_operators", "gpu", "network"), "host"))
    assert after == USUAL.replace("  gpu: {flavor: docker}\n", "  gpu:\n    flavor: docker\n    network: host\n")


def test_an_entry_that_is_removed_takes_no_comment_of_another_with_it() -> None:
    after = changed(
        USUAL, ("set", ("stacks", "prod", "step_operators"), ["gpu"]), ("remove", ("step_operators", "cpu"))
    )
    for comment in ("# small and cheap", "# one GPU", "# here", "# stacks below", "# the end"):
        assert comment in after
    assert "cpu" not in after
    assert "    step_operators: [gpu]\n# the end\n" in after


def test_a_removed_setting_is_one_removed_line() -> None:
    after = changed(USUAL, ("remove", ("step_operators", "cpu", "network")))
    assert difference(USUAL, after) == (["    network:  'host'"], [])


def test_the_last_entry_of_a_section_takes_the_section_with_it() -> None:
    text = "version: 1\nactive: local\n# stores\nartifact_stores:\n  s: {flavor: local}\n# end\n"
    assert changed(text, ("remove", ("artifact_stores", "s"))) == "version: 1\nactive: local\n# stores\n# end\n"


def test_a_renamed_entry_stays_where_it_is() -> None:
    after = changed(
        USUAL,
        ("rename", ("step_operators", "gpu"), "a100"),
        ("set", ("stacks", "prod", "step_operators"), ["cpu", "a100"]),
    )
    assert "  # one GPU\n  a100: {flavor: docker}\n" in after


def test_a_file_all_in_braces_can_be_changed() -> None:
    after = changed('{"version": 1, "stacks": {}}', ("set", ("artifact_stores", "s"), {"flavor": "local"}))
    assert yaml.safe_load(after) == {"version": 1, "stacks": {}, "artifact_stores": {"s": {"flavor": "local"}}}


def test_a_file_without_a_line_end_can_be_changed() -> None:
    after = changed("version: 1\nactive: local", ("set", ("artifact_stores", "s"), {"flavor": "local"}))
    assert after == "version: 1\nactive: local\nartifact_stores:\n  s:\n    flavor: local\n"


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "1",
        "1e3",
        "0x1F",
        "2026-01-02",
        "~",
        "a: b",
        "# x",
        "",
        " x ",
        "é",
        "\n",
        "'",
        "\x85",
        "a\u2028b",
        "\u2029",
    ],
)
def test_text_that_looks_like_something_else_is_read_back_as_text(text: str) -> None:
    after = changed(USUAL, ("set", ("step_operators", "cpu", "network"), text))
    assert yaml.safe_load(after)["step_operators"]["cpu"]["network"] == text


def test_parts_that_refer_to_each_other_are_left_to_people() -> None:
    text = "version: 1\nstep_operators:\n  a: &a {flavor: docker}\n  b: *a\n"
    with pytest.raises(StackError, match="anchors"):
        changed(text, ("set", ("step_operators", "b", "network"), "host"))


def test_a_change_that_makes_the_file_wrong_is_refused() -> None:
    with pytest.raises(StackError, match="no step operator 'cpu'"):
        changed(USUAL, ("remove", ("step_operators", "cpu")))


def test_a_file_with_the_line_ends_of_windows_can_be_changed() -> None:
    after = changed(USUAL.replace("\n", "\r\n"), ("set", ("step_operators", "cpu", "flavor"), "local"))
    assert yaml.safe_load(after)["step_operators"]["cpu"]["flavor"] == "local"


NAMES = st.text("abcdefgh-_.01", min_size=1, max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
CHANGES = st.lists(st.tuples(st.sampled_from(["set", "key", "remove", "rename"]), NAMES, NAMES, VALUES), max_size=8)


@given(CHANGES)
@settings(deadline=None)
def test_whatever_is_changed_the_file_says_what_was_meant(changes: list[tuple[str, str, str, Any]]) -> None:
    draft = Draft(USUAL, "stepops.yaml")
    meant = yaml.safe_load(USUAL)
    for verb, name, other, value in changes:
        entries = meant.setdefault("container_registries", {})
        if verb == "set":
            draft.set(("container_registries", name), {"flavor": "local", other: value})
            entries[name] = {"flavor": "local", other: value}
        elif verb == "key" and name in entries:
            draft.set(("container_registries", name, other), value)
            entries[name][other] = value
        elif verb == "remove" and name in entries:
            draft.remove(("container_registries", name))
            del entries[name]
        elif verb == "rename" and name in entries and other not in entries:
            draft.rename(("container_registries", name), other)
            meant["container_registries"] = {other if key == name else key: item for key, item in entries.items()}
        if not meant["container_registries"]:
            del meant["container_registries"]
    after = draft.text()
    assert yaml.safe_load(after) == meant
    assert after.startswith(USUAL.removesuffix("# the end\n"))


def test_a_new_file_is_made_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "dags" / "stepops.yaml"
    with editing(path) as draft:
        draft.set(("artifact_stores", "s"), {"flavor": "local"})
    assert read_document(path.read_bytes(), "it")["artifact_stores"]["s"] == {"flavor": "local"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["stepops.yaml"]


def test_a_file_keeps_its_mode_and_a_link_its_target(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "stepops.yaml"
    real.write_text(USUAL)
    real.chmod(0o640)
    link.symlink_to(real)
    with editing(link) as draft:
        draft.set(("active",), "local")
    assert link.is_symlink()
    assert "active: local" in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_nothing_is_written_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "stepops.yaml"
    path.write_text(USUAL)
    with pytest.raises(StackError, match="changed my mind"), editing(path) as draft:
        draft.set(("active",), "local")
        raise StackError("changed my mind")
    assert path.read_text() == USUAL
    assert os.listdir(tmp_path) == ["stepops.yaml"]


_WRITER = """
import sys
from pathlib import Path
from airflow_stepops.stacks.draft import editing
print(flush=True)
for number in range(int(sys.argv[3])):
    with editing(Path(sys.argv[1])) as draft:
        draft.set(("artifact_stores", f"{sys.argv[2]}-{number}"), {"flavor": "local"})
"""


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "stepops.yaml"
    path.write_text(USUAL)
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, path, "w", "100000"], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for delay in (0.02, 0.05, 0.11):
        writer.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        read_document(path.read_bytes(), "it")
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, path, f"w{delay}", "100000"], stdout=subprocess.PIPE)
        assert writer.stdout is not None
    writer.kill()
    writer.wait()
    with editing(path) as draft:
        draft.set(("active",), "local")
    assert os.listdir(tmp_path) == ["stepops.yaml"]
