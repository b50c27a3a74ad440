"""``stepops run`` on several stacks: its end, and what Ctrl-C and other signals stop."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.clouds.ground import wait_for

STEPOPS = str(Path(sys.executable).with_name("stepops"))

STACKS = """\
version: 1
active: near
artifact_stores:
  near: {flavor: local, path: $near}
  near-too: {flavor: local, path: $near}
  far: {flavor: local, path: $far}
container_registries:
  images: {flavor: local, path: $images}
step_operators:
  here: {flavor: local}
stacks:
  near: {artifact_store: near, container_registry: images, step_operators: [here]}
  twin: {artifact_store: near-too, container_registry: images, step_operators: [here]}
  far: {artifact_store: far, container_registry: images, step_operators: [here]}
  gone: {artifact_store: far, container_registry: images, step_operators: [here]}
"""

PIPELINE = """\
import os
import time
from pathlib import Path

from airflow_stepops.dag import pipeline, step


@step
def load() -> int:
    return 7


@step(stack="twin")
def note(number: int) -> int:
    return number + 1


@step(step_operator=True, stack="far")
def work(number: int, folder: str, wait: bool) -> int:
    Path(folder, "pid").write_text(str(os.getpid()))
    try:
        while wait:
            time.sleep(0.05)
    finally:
        while Path(folder, "held").exists():
            time.sleep(0.05)
    return number * 2


@step(stack="gone")
def after(number: int) -> None: ...


@pipeline
def stacks(folder: str = "", wait: bool = True):
    after(work(note(load()), folder, wait))
"""

SLOW_TO_READ = """\
import os
import time
from pathlib import Path

Path(__file__).with_name("pid").write_text(str(os.getpid()))
time.sleep(300)
"""


class Project:
    """A folder with a pipeline whose steps are on two stacks, for a person without any Airflow."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.stack_file = folder / "stepops.yaml"
        text = STACKS
        for name in ("near", "far", "images"):
            text = text.replace(f"${name}", str(folder / name))
        self.stack_file.write_text(text)
        (folder / "stacks.py").write_text(PIPELINE)
        (folder / "slow.py").write_text(SLOW_TO_READ)
        self._environment = {
            name: text for name, text in os.environ.items() if not name.startswith(("AIRFLOW", "STEPOPS_"))
        } | {"HOME": str(home), "AIRFLOW_HOME": str(home / "airflow"), "STEPOPS_HOME": str(home / "stepops")}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        self._started.append(
            subprocess.Popen(
                [STEPOPS, *arguments],
                cwd=self.folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return self._started[-1]

    def run(self, *, wait: bool) -> subprocess.Popen[str]:
        """Start a run of the pipeline."""
        return self.start(
            "run", "stacks.py", "--param", f"folder={self.folder}", "--param", f"wait={str(wait).lower()}"
        )

    def pid(self) -> int:
        """Wait for the process of the step ``work``, or of the DAG file that is slow to read."""
        path = self.folder / "pid"
        return int(wait_for(lambda: path.exists() and path.read_text(), "a process id", 120))

    def hold(self) -> None:
        """Keep the step ``work`` from ending until it is let go."""
        (self.folder / "held").touch()

    def let_go(self) -> None:
        (self.folder / "held").unlink(missing_ok=True)

    def left(self) -> list[str]:
        """Return what runs left on this machine, but for their logs and the empty database."""
        runs = self.home / "stepops" / "local-runs"
        return [path.name for path in runs.glob("*/*") if path.name != "log"]

    def clean(self) -> None:
        self.let_go()
        for process in self._started:
            process.kill()
            process.communicate()
        with suppress(FileNotFoundError, ProcessLookupError):  # a job that should have been stopped
            os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def project(tmp_path: Path, home: Path) -> Iterator[Project]:
    project = Project(tmp_path, home)
    yield project
    project.clean()


def ended(run: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a command; return its exit code and what it had yet to print."""
    printed, _ = run.communicate(timeout=180)
    return run.returncode, printed


def until(run: subprocess.Popen[str], text: str) -> str:
    """Read what a command prints until a line has a text."""
    assert run.stdout is not None
    lines = ""
    for line in run.stdout:
        lines += line
        if text in line:
            return lines
    raise AssertionError(lines)


def states(printed: str) -> dict[str, str]:
    """Return the state of each step in a summary."""
    table = printed.partition("\nstep ")[2].splitlines()[1:]
    return dict(re.split("  +", line)[:2] for line in table if re.match(r"\S+  ", line))


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_summary_shows_the_steps_of_all_stacks(project: Project) -> None:
    code, printed = ended(project.run(wait=False))
    assert code == 0, printed
    assert states(printed) == dict.fromkeys(("load", "note", "work", "after"), "succeeded")
    assert printed.count("\nload ") == 1, "two stacks share its artifact store"
    assert re.search(rf"^Outputs are in file://{project.folder}/near/runs/stacks/manual__\S+/$", printed, re.MULTILINE)
    assert re.search(rf"^Outputs are in file://{project.folder}/far/runs/stacks/manual__\S+/$", printed, re.MULTILINE)
    assert printed.endswith("of stacks: succeeded\n")
    assert project.left() == []


def test_ctrl_c_stops_the_jobs_of_all_stacks_but_of_one_that_cannot_be_read(project: Project) -> None:
    run = project.run(wait=True)
    job = project.pid()
    project.stack_file.write_text(re.sub(r"  gone: .*\n", "", project.stack_file.read_text()))
    run.send_signal(signal.SIGINT)
    code, printed = ended(run)
    assert code == 130, printed
    assert is_gone(job)
    assert re.search(r"^  work: job stacks-work-\S+: stopped$", printed, re.MULTILINE), printed
    assert states(printed) == {"load": "succeeded", "note": "succeeded", "work": "stopped", "after": "not begun"}
    assert "cancelled: 'stepops run' was interrupted" in printed
    assert printed.count("\nload ") == 1
    assert re.search(r"^  stack 'gone' cannot be read: .* no stack 'gone'", printed, re.MULTILINE), printed
    assert re.search(r"again: stepops cancel stacks manual__\S+ --stack gone$", printed, re.MULTILINE)
    assert printed.endswith("of stacks: interrupted\n")
    assert project.left() == []


def test_sigterm_does_so_too_and_another_one_is_no_reason_to_leave_a_job(project: Project) -> None:
    project.hold()
    run = project.run(wait=True)
    job = project.pid()
    run.send_signal(signal.SIGTERM)
    until(run, "Stopping the jobs of this run")
    run.send_signal(signal.SIGTERM)
    project.let_go()
    code, printed = ended(run)
    assert code == 130, printed
    assert is_gone(job)
    assert states(printed)["work"] == "stopped"


def test_a_second_ctrl_c_leaves_the_jobs_and_says_how_to_stop_them(project: Project) -> None:
    project.hold()
    run = project.run(wait=True)
    job = project.pid()
    run.send_signal(signal.SIGINT)
    until(run, "Stopping the jobs of this run")
    run.send_signal(signal.SIGINT)
    code, printed = ended(run)
    assert code == 130, printed
    assert not is_gone(job)
    project.let_go()
    (command,) = re.findall(r"^  stepops (cancel .* --stack far)$", printed, re.MULTILINE)
    assert ended(project.start(*shlex.split(command)))[0] == 0
    assert is_gone(job)
    assert project.left() == []


def test_a_job_that_appears_after_ctrl_c_is_stopped(project: Project) -> None:
    run = project.run(wait=True)
    jobs = project.home / "stepops" / "jobs"
    before = set(jobs.glob("*"))
    (folder,) = wait_for(lambda: set(jobs.glob("[!.]*")) - before, "a job's folder, before its process", 120)
    run.send_signal(signal.SIGINT)
    code, printed = ended(run)
    assert code == 130, printed
    assert re.search(rf"^  work: job {folder.name}: stopped$", printed, re.MULTILINE), printed
    assert states(printed)["work"] == "stopped"
    assert not (project.folder / "pid").exists() or is_gone(project.pid())


def test_a_run_whose_process_is_killed_leaves_no_job(project: Project) -> None:
    run = project.run(wait=True)
    job = project.pid()
    (process,) = psutil.Process(run.pid).children()
    process.kill()
    code, printed = ended(run)
    assert code == 1, printed
    assert is_gone(job)
    assert "The process of the run has ended with code -9, the run has not: stopping its jobs." in printed
    assert printed.endswith("of stacks: failed\n")


@pytest.mark.parametrize(
    ("number", "code", "text"), [(signal.SIGINT, 130, "No task had begun."), (signal.SIGKILL, -9, "")]
)
def test_nothing_goes_on_when_the_command_ends_before_a_task_begins(
    project: Project, number: signal.Signals, code: int, text: str
) -> None:
    run = project.start("run", "slow.py")
    reading = project.pid()
    run.send_signal(number)
    returned, printed = ended(run)
    assert (returned, text in printed) == (code, True), printed
    wait_for(lambda: is_gone(reading), "the end of the process that reads the DAG file")


def test_a_step_whose_launch_failed_is_not_said_to_run(tmp_path: Path) -> None:
    home = tmp_path / "another-home"
    (home / "stepops").mkdir(parents=True)
    (home / "stepops" / "jobs").write_text("a file where the jobs of this machine should be")
    code, printed = ended(Project(tmp_path, home).run(wait=False))
    assert code == 1, printed
    assert states(printed) == {"load": "succeeded", "note": "succeeded", "work": "failed", "after": "upstream failed"}
    assert "NotADirectoryError" in printed.partition("The end of ")[2]
    assert "of stacks: failed\n" in printed
