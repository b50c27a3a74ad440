"""The installed program ``stepops``, from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Console = Callable[..., subprocess.CompletedProcess[str]]

PIPELINE = """\
from airflow_stepops.dag import pipeline, step


@step
def load(size: int) -> list[int]:
    return list(range(size))


@step(step_operator=True)
def square(number: int) -> int:
    print("squares", number)
    return number * number


@step(step_operator="here")
def total(numbers: list[int]) -> int:
    if sum(numbers) > 100:
        raise ValueError(f"too many: {numbers}")
    return sum(numbers)


@pipeline
def squares(size: int = 3):
    total(square.expand(number=load(size)))
"""

OURS = ("stepops", "airflow")

FOUR = (
    "artifact-store register files --flavor local --path {}/values",
    "container-registry register images --flavor local --path {}/images",
    "step-operator register here --flavor local",
    "stack register mine -a files -c images -s here",
    "stack set mine",
)


def sys_program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a person without any Airflow."""
    home = tmp_path_factory.mktemp("home")
    variables = {name: text for name, text in os.environ.items() if not name.startswith(("AIRFLOW", "STEPOPS_"))}
    return variables | {"HOME": str(home), "AIRFLOW_HOME": str(home / "airflow"), "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def console(folder: Path, environment: dict[str, str]) -> Console:
    """Run a program of this environment in the folder."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = command[0].split() if len(command) == 1 else command
        return subprocess.run(
            [sys_program(program) if program in OURS else program, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def set_up(console: Console, folder: Path) -> Console:
    """A folder with a pipeline and a stack that was registered by commands."""
    (folder / "squares.py").write_text(PIPELINE)
    for command in FOUR:
        done = console(f"stepops {command.format(folder)}")
        assert (done.returncode, done.stderr) == (0, "")
    return console


def test_images_are_built_beforehand_and_the_run_finds_them(set_up: Console, folder: Path) -> None:
    planned = set_up("stepops build squares.py --check --json")
    rows = json.loads(planned.stdout)
    assert [(row["step"], row["operator"], row["there"]) for row in rows] == [
        ("square", "here", False),
        ("total", "here", False),
    ]
    assert not (folder / "images").exists()
    built = json.loads(set_up("stepops build squares.py --json").stdout)
    assert [row["built"] for row in built] == [True, False], "both steps have the same image"
    assert {row["tag"] for row in built} == {row["tag"] for row in rows}
    run = set_up("stepops run squares.py --param size=2")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "nothing uploaded" in run.stdout


def test_a_run_shows_its_steps_and_what_they_returned(set_up: Console, folder: Path) -> None:
    done = set_up("stepops run squares.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "square[2]" in done.stdout
    assert "local job" in done.stdout
    assert "return_value: 5" in done.stdout
    assert "of squares: succeeded" in done.stdout
    assert "squares 2" not in done.stdout, "logs of tasks are in the log"
    assert (folder / "values" / "runs" / "squares").is_dir()


def test_a_run_that_fails_says_why_and_exits_with_1(set_up: Console) -> None:
    done = set_up("stepops run squares.py --param size=8")
    assert done.returncode == 1
    assert "ValueError: too many" in done.stdout
    assert "too many" in done.stdout.split("Traceback of total:")[1]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run squars.py", "squars.py: there is no such file"),
        ("run squares.py --stack mne", "Did you mean 'mine'?"),
        ("run squares.py --param siz=3", "Did you mean 'size'?"),
        ("run squares.py --param size", "write it as key=value"),
        ("run squares.py --dag-id square", "Did you mean 'squares'?"),
        ("build squars.py", "squars.py: there is no such file"),
        ("build squares.py --stack mne", "Did you mean 'mine'?"),
        ("build squares.py --stack local", "no step operator 'here'"),
        ("run broken.py", "broken.py cannot be imported: ZeroDivisionError: division by zero (line 1)"),
        ("run empty.py", "empty.py defines no DAG"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(set_up: Console, folder: Path, command: str, said: str) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "empty.py").write_text("")
    done = set_up(f"stepops {command}")
    (folder / "broken.py").unlink()
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_commands_are_in_airflow_s_own_command_line(set_up: Console) -> None:
    ours, theirs = set_up("stepops stack describe --json"), set_up("airflow stepops stack describe --json")
    assert theirs.stdout == ours.stdout
    assert json.loads(ours.stdout)["name"] == "mine"
    wrong = set_up("airflow stepops stack describe mne")
    assert (wrong.returncode, "Did you mean 'mine'?" in wrong.stderr) == (2, True)


def test_the_shell_completes_names(set_up: Console) -> None:
    completed = set_up(
        "env",
        "_STEPOPS_COMPLETE=bash_complete",
        "COMP_WORDS=stepops stack set m",
        "COMP_CWORD=3",
        sys_program("stepops"),
    )
    assert completed.stdout == "plain,mine\n"


def test_a_program_that_stops_reading_is_no_error(set_up: Console) -> None:
    done = set_up("sh", "-c", f"{sys_program('stepops')} flavor list | head -n 1")
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
