"""Components and stacks on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_stepops.cli.main import COMMANDS, run
from airflow_stepops.stacks.document import read_document
from airflow_stepops.stacks.file import StackFile
from tests.cli.conftest import Stepops

FILE = "stepops.yaml"

FOUR = (
    "artifact-store register files --flavor local --path /data/files",
    "container-registry register team --flavor generic --uri registry.example.com:5000/ml --connection team_registry",
    "step-operator register engine --flavor docker --network host",
    "stack register shared -o local_orchestrator -a files -c team -s engine -s local",
)


@pytest.fixture
def shared(stepops: Stepops) -> Stepops:
    """A folder in which the four commands of a new user have run."""
    for command in FOUR:
        said = stepops(command)
        assert (said.code, said.err) == (0, "")
    return stepops


def test_what_is_registered_is_in_the_file_and_is_described(shared: Stepops, folder: Path) -> None:
    assert f"in {folder / FILE}" in shared("stack set shared").out
    document = yaml.safe_load((folder / FILE).read_text())
    assert document["active"] == "shared"
    assert document["container_registries"]["team"] == {
        "flavor": "generic",
        "uri": "registry.example.com:5000/ml",
        "connection": "team_registry",
    }
    described = shared("stack describe --json").json()
    assert described["artifact_store"] == {"name": "files", "flavor": "local", "settings": {"path": "/data/files"}}
    assert [operator["name"] for operator in described["step_operators"]] == ["engine", "local"]
    assert described["container_registry"]["settings"]["repository"] == "stepops"
    assert shared("stack get").out == "shared\n"
    assert "registry.example.com:5000/ml" in shared("stack describe").out


def test_with_nothing_registered_there_is_the_local_stack(stepops: Stepops, folder: Path) -> None:
    (row,) = stepops("stack list --json").json()
    assert (row["name"], row["active"]) == ("local", True)
    assert os.listdir(folder) == []


def test_settings_are_read_as_the_types_of_the_flavor(stepops: Stepops) -> None:
    stepops("step-operator", "register", "e", "--type", "docker", "--extra", "{shm_size: 2g, privileged: true}")
    stepops("container-registry", "register", "r", "--flavor=generic", "--uri=localhost:5000", "--insecure")
    stepops("container-registry", "register", "y", "--flavor=generic", "--uri", "yes", "--repository", "1")
    assert stepops("step-operator describe e --json").json()["settings"]["extra"] == {
        "shm_size": "2g",
        "privileged": True,
    }
    assert stepops("container-registry describe r --json").json()["settings"]["insecure"] is True
    said = stepops("container-registry describe y --json").json()["settings"]
    assert (said["uri"], said["repository"]) == ("yes", "1")


def test_an_update_changes_what_it_names_and_no_more(shared: Stepops, folder: Path) -> None:
    path = folder / FILE
    path.write_text(path.read_text().replace("network: host", "network: host  # for the registry"))
    assert shared("step-operator update engine --network bridge").code == 0
    assert "network: bridge  # for the registry" in path.read_text()
    assert shared("step-operator update engine --unset network --base-image python:3.12").code == 0
    assert yaml.safe_load(path.read_text())["step_operators"]["engine"] == {
        "flavor": "docker",
        "base_image": "python:3.12",
    }


def test_a_built_in_component_is_changed_by_an_entry_of_its_own(stepops: Stepops, folder: Path) -> None:
    assert stepops("artifact-store update local --path /data/values").code == 0
    assert stepops("stack describe local --json").json()["artifact_store"]["settings"] == {"path": "/data/values"}
    assert stepops("artifact-store delete local").code == 0
    assert stepops("artifact-store describe local --json").json()["settings"] == {"path": None}


def test_a_renamed_component_is_renamed_in_its_stacks(shared: Stepops) -> None:
    assert shared("step-operator rename engine podman").code == 0
    assert [operator["name"] for operator in shared("stack describe shared --json").json()["step_operators"]] == [
        "podman",
        "local",
    ]


def test_a_component_is_deleted_only_when_no_stack_has_it(shared: Stepops) -> None:
    said = shared("step-operator delete engine")
    assert (said.code, "stack shared" in said.err) == (2, True)
    assert shared("stack update shared -s local").code == 0
    assert shared("step-operator delete engine").code == 0
    assert [row["name"] for row in shared("step-operator list --json").json()] == ["local"]


def test_a_stack_can_be_copied_changed_and_deleted(shared: Stepops) -> None:
    shared("stack copy shared mine")
    shared("stack update mine -c local")
    assert shared("stack describe mine --json").json()["container_registry"]["name"] == "local"
    assert shared("stack describe shared --json").json()["container_registry"]["name"] == "team"
    shared("stack set mine")
    assert shared("stack delete mine").code == 2
    shared("stack set shared")
    assert shared("stack delete mine").code == 0
    assert [row["name"] for row in shared("stack list --json").json()] == ["local", "shared"]


def test_an_exported_stack_is_the_same_in_another_folder(
    shared: Stepops, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = tmp_path_factory.mktemp("exported") / "shared.yaml"
    assert shared("stack", "export", "shared", "-f", str(exported)).code == 0
    before = shared("stack describe shared --json").out
    monkeypatch.chdir(tmp_path_factory.mktemp("other"))
    assert shared("stack", "import", str(exported)).code == 0
    assert shared("stack describe shared --json").out == before
    assert shared("stack", "import", str(exported)).code == 0, "what is there already is the same"
    shared("step-operator update engine --network none")
    said = shared("stack", "import", str(exported))
    assert (said.code, "another step operator 'engine'" in said.err) == (2, True)


def test_every_flavor_is_listed_with_the_meaning_of_its_settings(stepops: Stepops) -> None:
    listed = {(row["kind"], row["flavor"]): row for row in stepops("flavor list --json").json()}
    generic = {item["name"]: item for item in listed["container_registries", "generic"]["settings"]}
    assert generic["uri"]["required"] is True
    assert (generic["insecure"]["type"], generic["insecure"]["default"]) == ("true or false", False)
    assert all(item["meaning"] for row in listed.values() for item in row["settings"])
    assert all(row["summary"] for row in listed.values())
    assert "linux/arm64" in stepops("flavor list step-operator").out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("stak list", "Did you mean 'stack'?"),
        ("stack lst", "Did you mean 'list'?"),
        ("stack list --jsn", "Did you mean '--json'?"),
        ("stack describe shred", "Did you mean 'shared'?"),
        ("stack set shard", "Did you mean 'shared'?"),
        ("stack delete shard", "Did you mean 'shared'?"),
        ("stack copy shard new", "Did you mean 'shared'?"),
        ("stack update shard -a files", "Did you mean 'shared'?"),
        ("stack update shared -a fils", "Did you mean 'files'?"),
        ("stack update shared -s engin", "Did you mean 'engine'?"),
        ("stack register new -a files -c tem -s engine", "Did you mean 'team'?"),
        ("stack register new -a files", "missing option '-c'"),
        ("stack register new -o airflo -a files -c team", "Did you mean 'airflow'?"),
        ("stack register shared -a files -c team", "the stack 'shared' is there already"),
        ("stack export shard", "Did you mean 'shared'?"),
        ("stack import no-such-file.yaml", "no-such-file.yaml: cannot be read"),
        ("artifact-store register s --flavor locl", "Did you mean 'local'?"),
        ("artifact-store register s --flavr local", "Did you mean --flavor"),
        ("artifact-store register s --flavor local --pth /x", "Did you mean 'path'?"),
        ("artifact-store register s --flavor local --path x", "give a path that begins with /"),
        ("artifact-store register s --flavor local path /x", "unexpected argument 'path'"),
        ("artifact-store register a/b --flavor local", "'a/b' is no name"),
        ("artifact-store register files --flavor local", "the artifact store 'files' is there already"),
        ("artifact-store register --flavor local --path /x", "the name comes first"),
        ("artifact-store describe file", "Did you mean 'files'?"),
        ("artifact-store rename fles new", "Did you mean 'files'?"),
        ("artifact-store delete local", "is built in"),
        ("container-registry register r --flavor generic", "uri: this setting is required"),
        ("container-registry register r --flavor generic --uri x --password hunter2", "looks like a secret"),
        ("container-registry update team --uri HTTPS://x", "without https://"),
        ("step-operator update engine --netwrk x", "Did you mean 'network'?"),
        ("step-operator update engine --unset netwrk", "Did you mean 'network'?"),
        ("step-operator update engin --network x", "Did you mean 'engine'?"),
        ("step-operator register e --flavor docker --platform linux/amd46", "'linux/amd64'"),
        ("flavor list step-operatr", "step-operator"),
    ],
)
def test_a_typo_is_answered_in_one_line_and_changes_nothing(
    shared: Stepops, folder: Path, command: str, said: str
) -> None:
    before = (folder / FILE).read_bytes()
    answer = shared(command)
    assert answer.code == 2
    assert answer.out == ""
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert "hunter2" not in answer.err
    assert (folder / FILE).read_bytes() == before
    assert os.listdir(folder) == [FILE]


def test_a_file_that_is_wrong_is_said_by_every_command_that_reads_it(stepops: Stepops, folder: Path) -> None:
    (folder / FILE).write_text("version: 1\nstaks: {}\n")
    for command in ("stack list", "artifact-store list", "stack set local", FOUR[0]):
        answer = stepops(command)
        assert answer.code == 2
        assert "staks: unknown key. Did you mean 'stacks'?" in answer.err
        assert answer.err.count("\n") == 1


def test_the_file_is_the_one_that_airflow_reads(
    stepops: Stepops, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dags, own = folder / "dags", folder / "own.yaml"
    dags.mkdir()
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(dags))
    stepops(FOUR[0])
    assert os.listdir(dags) == [FILE]
    assert [row["name"] for row in stepops("artifact-store list --json").json()] == ["local", "files"]
    monkeypatch.setenv("STEPOPS_CONFIG", str(own))
    stepops(FOUR[1])
    assert [row["name"] for row in stepops("artifact-store list --json").json()] == ["local"]
    assert "team" in own.read_text()


def test_every_command_has_help(stepops: Stepops) -> None:
    for name in COMMANDS:
        said = stepops(f"{name} --help")
        assert said.code == 0
        assert said.out.startswith(f"Usage: stepops {name}")


NAMES = st.sampled_from(["a", "b", "yes", "1", "local"])
COMMAND = st.one_of(
    st.tuples(st.just("artifact-store register {} --flavor local --path /{}"), NAMES, NAMES),
    st.tuples(st.just("step-operator register {} --flavor docker --network {}"), NAMES, NAMES),
    st.tuples(st.just("container-registry register {} --flavor generic --uri {}"), NAMES, NAMES),
    st.tuples(st.just("step-operator update {} --network {}"), NAMES, NAMES),
    st.tuples(st.just("step-operator update {0} --unset network"), NAMES, NAMES),
    st.tuples(st.just("step-operator rename {} {}"), NAMES, NAMES),
    st.tuples(st.just("artifact-store delete {}"), NAMES, NAMES),
    st.tuples(st.just("step-operator delete {}"), NAMES, NAMES),
    st.tuples(st.just("stack register {0} -a {1} -c local -s {1}"), NAMES, NAMES),
    st.tuples(st.just("stack update {0} -s {1} -s local"), NAMES, NAMES),
    st.tuples(st.just("stack copy {} {}"), NAMES, NAMES),
    st.tuples(st.just("stack delete {}"), NAMES, NAMES),
    st.tuples(st.just("stack set {}"), NAMES, NAMES),
)


@given(commands=st.lists(COMMAND, max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_no_sequence_of_commands_leaves_a_file_that_the_next_cannot_read(
    folder: Path, commands: list[tuple[str, str, str]]
) -> None:
    path = folder / FILE
    path.unlink(missing_ok=True)
    for template, first, second in commands:
        before = path.read_bytes() if path.exists() else b""
        code = run(template.format(first, second).split())
        after = path.read_bytes() if path.exists() else b""
        assert code in (0, 2)
        assert code == 0 or after == before
        if after:
            StackFile(read_document(after, FILE), FILE).check()


_REGISTER = """
import sys
from airflow_stepops.cli.main import run
for number in range(200):
    assert run(["artifact-store", "register", f"{sys.argv[1]}-{number}", "--flavor", "local"]) == 0
"""


def test_two_writers_at_the_same_time_lose_nothing(stepops: Stepops, folder: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _REGISTER, name], stdout=subprocess.DEVNULL) for name in ("a", "b")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    names = {row["name"] for row in stepops("artifact-store list --json").json()}
    assert names == {"local", *(f"{writer}-{number}" for writer in "ab" for number in range(200))}
    assert os.listdir(folder) == [FILE]
