"""A folder with the pipelines of the live suites, used through the installed console script as a person would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_stepops.client import Client, StepRun

#: Machines take minutes to come.
_LONGEST_WAIT = 1200.0


def setting(name: str) -> str:
    """Return a variable of the suite; without it nothing can be run."""
    value = os.environ.get(name)
    if not value:
        pytest.exit(f"{name} is not set: the page of this cloud in the documentation says what this suite needs.", 2)
    return value


@dataclass(frozen=True)
class Project:
    """A folder with the pipelines and a stack file.

    :param stack: name of the stack that the pipelines run on.
    """

    folder: Path
    stack: str = "live"

    @classmethod
    def at(cls, folder: Path, document: dict[str, Any]) -> Project:
        """Make one.

        :param document: the stack file.
        """
        shutil.copy(Path(__file__).with_name("steps.py"), folder / "pipelines.py")
        (folder / "stepops.yaml").write_text(yaml.safe_dump(document))
        return cls(folder)

    def on(self, stack: str) -> Project:
        """Return the same with another stack."""
        return Project(self.folder, stack)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of ``stepops``."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "STEPOPS_"))
        }
        environment |= {"AIRFLOW_HOME": str(self.folder / "airflow"), "STEPOPS_HOME": str(self.folder / "home")}
        command = [str(Path(sys.executable).with_name("stepops")), *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def call(self, *arguments: str) -> tuple[int, str]:
        """Run a command; return its exit code and what it printed."""
        running = self.start(*arguments)
        printed, _ = running.communicate(timeout=_LONGEST_WAIT)
        return running.returncode, printed

    def run(self, dag: str) -> tuple[int, str]:
        """Run a pipeline to its end."""
        return self.call("run", "pipelines.py", "--dag-id", dag, "--stack", self.stack)

    def last(self, dag: str, task: str) -> StepRun:
        """Return the only step of the latest run of a pipeline."""
        client = Client(self.folder / "stepops.yaml")
        run = client.runs(dag, stack=self.stack)[0]
        return client.get_run(dag, run.run_id, stack=self.stack).step(task)

    def running_job(self, dag: str) -> dict[str, Any]:
        """Wait until the job of a pipeline runs."""
        deadline = time.monotonic() + _LONGEST_WAIT
        while time.monotonic() < deadline:
            code, printed = self.call("jobs", "list", "--running", "--dag", dag, "--stack", self.stack, "--json")
            jobs = json.loads(printed) if code == 0 else []
            if jobs and jobs[0]["state"] == "running":
                return dict(jobs[0])
            time.sleep(2)
        raise AssertionError(f"no job of {dag} ran within {_LONGEST_WAIT:.0f} s")
