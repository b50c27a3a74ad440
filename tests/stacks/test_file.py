"""The stack file: where it is found, what it means, and what is wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import StackError
from airflow_stepops.stacks.document import read_document
from airflow_stepops.stacks.file import find_file, load, store_for
from tests.stacks.conftest import USUAL, Write


def problem(folder: Path, name: str | None = None) -> str:
    """Return what is wrong with a stack, after the name of the file."""
    with pytest.raises(StackError) as caught:
        load(folder).stack(name)
    text = str(caught.value)
    file = str(folder / "stepops.yaml")
    assert text.startswith(f"{file}: ")
    assert "\n" not in text
    return text.removeprefix(f"{file}: ")


def test_without_a_file_there_is_the_local_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPOPS_HOME", str(tmp_path / "home"))
    stack = load(tmp_path).stack()
    assert stack.name == "local"
    assert stack.artifact_store.root() == (tmp_path / "home" / "artifacts").as_uri()
    assert stack.container_registry.open().path == str(tmp_path / "home" / "images")
    assert stack.image_builder.flavor == "oci"
    assert stack.step_operator.flavor == "local"


def test_a_stack_has_the_components_that_it_names(write: Write) -> None:
    stack = load(write(USUAL)).stack()
    assert stack.name == "laptop"
    assert stack.artifact_store.root() == "file:///data/store"
    assert (stack.container_registry.flavor, stack.container_registry.name) == ("generic", "cncf")
    assert (stack.image_builder.flavor, stack.image_builder.builds_dockerfiles) == ("docker", True)
    assert [operator.name for operator in stack.step_operators] == ["engine", "here"]


def test_the_first_step_operator_is_the_default(write: Write) -> None:
    stack = load(write(USUAL)).stack("laptop")
    assert stack.step_operator.name == stack.operator_named(True).name == "engine"
    assert stack.operator_named("here").flavor == "local"


def test_an_unknown_step_operator_is_answered_with_the_nearest(write: Write) -> None:
    with pytest.raises(
        StackError, match=r"has no step operator 'engin'\. Did you mean 'engine'\? It has: engine, here"
    ):
        load(write(USUAL)).stack().operator_named("engin")


def test_the_local_stack_is_there_beside_a_file(write: Write) -> None:
    file = load(write(USUAL))
    assert file.stack("local").step_operator.flavor == "local"
    assert file.names("stacks") == ["laptop", "local"]


def test_a_file_may_define_its_own_local_stack(write: Write) -> None:
    folder = write("""\
version: 1
artifact_stores: {local: {flavor: local, path: /elsewhere}}
stacks: {local: {artifact_store: local, container_registry: local}}
""")
    stack = load(folder).stack()
    assert stack.artifact_store.root() == "file:///elsewhere"
    assert stack.step_operators == ()
    with pytest.raises(StackError, match="has no step operator: add one"):
        stack.step_operator  # noqa: B018


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(write: Write) -> None:
    folder = write(USUAL)
    first = load(folder)
    assert load(folder) is first
    write(USUAL.replace("/data/store", "/data/other"))
    assert load(folder).stack().artifact_store.root() == "file:///data/other"
    write("version: 1\n")
    assert load(folder).stack().name == "local"


def test_a_file_of_the_same_size_and_time_is_known_by_its_inode(write: Write) -> None:
    folder = write(USUAL)
    path = folder / "stepops.yaml"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    load(folder)
    other = folder / "other"
    other.write_text(USUAL.replace("/data/store", "/data/stare"))
    os.utime(other, ns=times)
    other.replace(path)
    assert load(folder).stack().artifact_store.root() == "file:///data/stare"


def test_the_file_that_a_variable_names_comes_first(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write("version: 1\n")
    named = tmp_path / "named.yaml"
    named.write_text(USUAL)
    monkeypatch.setenv("STEPOPS_CONFIG", str(named))
    assert find_file(folder) == named
    assert load(folder).stack().name == "laptop"
    named.unlink()
    with pytest.raises(StackError, match=r"named\.yaml: there is no such file, but STEPOPS_CONFIG"):
        load(folder)


def test_the_file_nearest_above_the_dag_is_taken_up_to_the_dags_folder(write: Write, tmp_path: Path) -> None:
    folder = write("version: 1\n")
    deep = folder / "team" / "project"
    deep.mkdir(parents=True)
    assert find_file(deep) == folder / "stepops.yaml"
    (folder / "team" / "stepops.yaml").write_text("version: 1\n")
    assert find_file(deep) == folder / "team" / "stepops.yaml"
    (folder / "stepops.yaml").unlink()
    (folder / "team" / "stepops.yaml").unlink()
    (tmp_path / "stepops.yaml").write_text("version: 1\n")
    assert find_file(deep) is None


def test_a_dag_outside_of_the_dags_folder_has_its_own_folder_and_then_that_one(write: Write, tmp_path: Path) -> None:
    folder = write("version: 1\n")
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    assert find_file(elsewhere) == folder / "stepops.yaml"
    (elsewhere.parent / "stepops.yaml").write_text("version: 1\n")
    assert find_file(elsewhere) == folder / "stepops.yaml"
    (elsewhere / "stepops.yaml").write_text("version: 1\n")
    assert find_file(elsewhere) == elsewhere / "stepops.yaml"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("network: host", "netwrk: host", "step_operators.engine.netwrk: unknown setting. Did you mean 'network'?"),
        ("network: host", "network: 5", "step_operators.engine.network: 5 is not allowed: input should be"),
        (
            "network: host",
            "platform: linux/x",
            "step_operators.engine.platform: 'linux/x' is not allowed: ",
        ),
        ("network: host", "name: x", "step_operators.engine.name: a component's name is its key in the file"),
        ("network: host", "extra: {tty: true}", "step_operators.engine.extra: {'tty': True} is not allowed: tty: the "),
        ('uri: "127.0.0.1:5000/team"', "ur: x", "container_registries.cncf.ur: unknown setting. Did you mean 'uri'?"),
        ('uri: "127.0.0.1:5000/team", ', "", "container_registries.cncf.uri: this setting is required."),
        ('"127.0.0.1:5000/team"', "https://a/b", "container_registries.cncf.uri: 'https://a/b' is not allowed: give a"),
        (
            "connection: my_registry",
            "insecure: 1",
            "container_registries.cncf.insecure: 1 is not allowed: ",
        ),
        ("flavor: generic", "flavor: genric", "container_registries.cncf.flavor: 'genric': unknown flavor. Did you me"),
        ("{flavor: docker}}", "{}}", "image_builders.engine.flavor: this setting is required. Allowed: docker, oci."),
        ("path: /data/store", "path: data", "artifact_stores.files.path: 'data' is not allowed: give a path that beg"),
        (
            "artifact_store: files",
            "artifact_store: file",
            "stacks.laptop.artifact_store: there is no artifact store",
        ),
        (
            "artifact_store: files",
            "artifact_store: [a]",
            "stacks.laptop.artifact_store: ['a'] is not allowed: give",
        ),
        (
            "artifact_store: files",
            "artefact_store: f",
            "stacks.laptop.artefact_store: unknown key. Did you mean",
        ),
        ("artifact_store: files, ", "", "stacks.laptop.artifact_store: this setting is required."),
        ("[engine, here]", "engine", "stacks.laptop.step_operators: 'engine' is not allowed: give a list of names"),
        (
            "[engine, here]",
            "[here, her]",
            "stacks.laptop.step_operators: there is no step operator 'her'.",
        ),
        ("active: laptop", "active: labtop", "active: there is no stack 'labtop'. Did you mean 'laptop'? There are: "),
        ("active: laptop", "activ: laptop", "activ: unknown key. Did you mean 'active'? Allowed: active, artifact_sto"),
        ("version: 1\n", "", "version: None is not supported. Write version: 1."),
        ("version: 1", "version: true", "version: True is not supported. Write version: 1."),
        ("version: 1", "version: 2", "version: 2 is not supported. Write version: 1."),
        ("active: laptop", "active: laptop\nactive: local", "is not YAML: key 'active' is given twice"),
        ("{flavor: docker, ", "{flavor: docker, flavor: local, ", "is not YAML: key 'flavor' is given twice"),
        (
            "{here: {flavor: local}, ",
            "{here: local, ",
            "step_operators.here: must be a name with a mapping",
        ),
        (
            "image_builders:       {engine: {flavor: docker}}",
            "image_builders: []",
            "image_builders: must be",
        ),
        ("version: 1", "version: [", "is not YAML: while parsing a flow sequence"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(write: Write, old: str, new: str, said: str) -> None:
    assert old in USUAL
    assert problem(write(USUAL.replace(old, new))).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version: 1\nactive: \xff\n", "is not UTF-8 text"),
        (b"- version: 1\n", "must be a mapping"),
        (b"", "must be a mapping"),
        (b"a: &a [*a]\n", "refers to itself"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"version: 2026-13-45\n", "is not YAML: month must be in 1..12"),
        (b"? [a]\n: b\n", "found unhashable key"),
        (b"version: !!python/object/apply:os.system [ls]\n", "is not YAML: could not determine a constructor"),
    ],
)
def test_what_is_no_stack_file_is_said_in_one_line(content: bytes, said: str) -> None:
    with pytest.raises(StackError) as caught:
        read_document(content, "stepops.yaml")
    assert str(caught.value).startswith("stepops.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        "password: hunter2hunter2",
        "extra: {environment: {API_TOKEN: hunter2hunter2}}",
        "extra: {environment: [API_TOKEN=hunter2hunter2]}",
        "extra: {a: [{clientSecret: hunter2hunter2}]}",
        "docker_host: tcp://me:hunter2hunter2@host:2375",
        "network: AKIAIOSFODNN7EXAMPLE",
        "network: DefaultEndpointsProtocol=https;AccountKey=aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjI=",
        "network: https://a.blob.core.windows.net/c?sv=1&sig=aHVudGVyMmh1bnRlcjJodW50ZXIy",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(write: Write, setting: str) -> None:
    said = problem(write(USUAL.replace("network: host", setting)))
    assert said.startswith(f"step_operators.engine.{setting.partition(':')[0]}")
    assert "looks like a secret" in said
    assert "Airflow connection" in said
    assert "hunter2" not in said
    assert "EXAMPLE" not in said


def test_an_unused_component_is_checked_when_asked_for_and_not_before(write: Write) -> None:
    folder = write(USUAL.replace("{here: {flavor: local}", "{unused: {flavor: nowhere}, here: {flavor: local}"))
    file = load(folder)
    assert file.stack().name == "laptop"
    with pytest.raises(StackError, match=r"step_operators\.unused\.flavor: 'nowhere': unknown flavor"):
        file.check()


def test_a_store_is_found_by_what_is_in_it(write: Write, tmp_path: Path) -> None:
    outer, inner = tmp_path / "store", tmp_path / "store" / "inner"
    write(f"""\
version: 1
artifact_stores:
  outer: {{flavor: local, path: {outer}}}
  inner: {{flavor: local, path: {inner}}}
""")
    found = store_for(f"{inner.as_uri()}/runs/value.json")
    assert isinstance(found, ArtifactStore)
    assert found.root == inner.as_uri()
    other = store_for(f"{outer.as_uri()}/innermost/value.json")
    assert other is not None
    assert other.root == outer.as_uri()
    assert store_for("s3://bucket/runs/value.json") is None


def test_reading_a_stack_imports_no_sdk_and_no_flavor_that_is_not_in_it(write: Write) -> None:
    folder = write(USUAL.replace("[engine, here]", "[here]").replace("image_builder: engine, ", ""))
    code = """
import sys
from pathlib import Path
from airflow_stepops.stacks.file import load
load(Path(sys.argv[1])).stack()
heavy = {"airflow", "docker", "requests", "httpx", "obstore", "uv", "airflow_stepops.clouds.docker"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz_-0123456789", min_size=1, max_size=12).map("n".__add__)


@given(stores=st.dictionaries(names, st.sampled_from(["/a", "/b/c", "~/d"]), min_size=1, max_size=4), data=st.data())
def test_any_names_can_be_given(stores: dict[str, str], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(sorted(stores)))
    document = {
        "version": 1,
        "active": chosen,
        "artifact_stores": {name: {"flavor": "local", "path": path} for name, path in stores.items()},
        "stacks": {chosen: {"artifact_store": chosen, "container_registry": "local", "step_operators": ["local"]}},
    }
    sections = read_document(yaml.safe_dump(document).encode(), "file")
    assert sections["active"] == chosen
    assert sections["stacks"][chosen]["artifact_store"] == chosen
    assert set(sections["artifact_stores"]) == {*stores, "local"}


@given(st.binary(max_size=200) | st.text(alphabet="{}[]:,-&*!|>'\"#%@ \n\tversion1ab?<=~", max_size=80).map(str.encode))
def test_no_text_is_more_than_an_error_in_one_line(content: bytes) -> None:
    try:
        sections = read_document(content, "file")
    except StackError as error:
        assert str(error).startswith("file: ")
        assert "\n" not in str(error)
    else:
        assert "local" in sections["stacks"]
