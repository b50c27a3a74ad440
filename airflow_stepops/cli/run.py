"""``stepops run``: one run of a DAG on this machine, without a scheduler."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_stepops.cli import place
from airflow_stepops.cli.dag_files import bundle_of
from airflow_stepops.cli.dag_process import DagProcess
from airflow_stepops.cli.interruption import Interruption, like_ctrl_c
from airflow_stepops.cli.local_airflow import local_airflow, tidy
from airflow_stepops.cli.local_run import LocalRun
from airflow_stepops.cli.main import FAILED, INTERRUPTED
from airflow_stepops.cli.run_arguments import warn
from airflow_stepops.cli.run_steps import RunSteps, cancel_command

if TYPE_CHECKING:
    from airflow_stepops.client import Run

_LOOK_SECONDS = 0.3
_LOG_LINES = 25
#: States that say nothing to a person.
_SILENT = (None, "scheduled", "queued")


@click.command("run", help="Run the DAG of a file once, here, and show how each step went.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--stack", help="Stack for steps that name none; default: the active one.")
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="A param of the DAG: JSON, or text.")
@click.option("--dag-id", help="Which DAG, where the file defines several.")
def run(file: Path, stack: str | None, params: Sequence[str], dag_id: str | None) -> int:
    """Run a DAG; the exit code is 0 when it succeeded, else 1; 130 when it was interrupted."""
    given = _read_params(params)
    file = place.dag_file(file)
    place.use(file, stack)
    with like_ctrl_c(), local_airflow(bundle_of(file)) as folder:
        interruption = Interruption(
            lambda: _say("\nStopping the jobs of this run; Ctrl-C again leaves them running."), lambda: _leave(folder)
        )
        with interruption.handled():
            ended = _follow(DagProcess(folder, file, dag_id, given), folder, interruption)
            local = LocalRun.read(folder)
            if ended is None:
                _stop(local, "interrupted")
                return INTERRUPTED
            if local is not None and local.run_id() and not local.is_over():
                _say(f"\nThe process of the run has ended with code {ended}, the run has not: stopping its jobs.")
                _stop(local, "failed")
                return FAILED
        if local is not None:
            _tell(local, succeeded=ended == 0)
        return ended if ended >= 0 else FAILED


def _follow(process: DagProcess, folder: Path, interruption: Interruption) -> int | None:
    """Print each change of a task's state until the process ends, and return its exit code.

    :returns: ``None`` when it was killed because of an interruption.
    """
    progress = _Progress(folder)
    try:
        while (ended := process.wait(_LOOK_SECONDS)) is None and not interruption.requested:
            progress.look()
    finally:
        process.kill()
    progress.look()
    return ended


class _Progress:
    """Prints what has changed.

    :param folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run: LocalRun | None = None
        self._began = 0.0
        self._states: dict[str, str | None] = {}

    def look(self) -> None:
        """Print the tasks whose states have changed."""
        if self._run is None:
            self._run = LocalRun.read(self._folder)
            if self._run is None:
                return
            self._began = time.monotonic()
            _say(f"Run of {self._run.dag_id}; its log: {_log(self._folder)}")
        try:
            tasks = self._run.tasks()
        except sqlite3.OperationalError:  # the next look shows it
            return
        for task in tasks:
            if task.state not in _SILENT and self._states.get(task.label) != task.state:
                _say(f"  {time.monotonic() - self._began:6.1f} s  {task.label:24} {task.state}")
            self._states[task.label] = task.state


def _stop(local: LocalRun | None, state: str) -> None:
    """Stop the jobs of a run whose process was killed, and print how its steps went.

    :param local: ``None`` when it was killed while the DAG was being read.
    """
    if local is None or not local.run_id():
        _say("No task had begun.")
        return
    run = RunSteps(local, _say).stop()
    _print_summary(run, state)
    _print_errors(run)


def _tell(local: LocalRun, *, succeeded: bool) -> None:
    """Print how a run went that has come to its end."""
    run = RunSteps(local, _say).read()
    _print_summary(run, "succeeded" if succeeded else "failed")
    explained = _print_errors(run)
    if any(task.state == "failed" and task.label not in explained for task in local.tasks()):
        _say(_end_of(_log(local.folder)))


def _print_summary(run: Run, state: str) -> None:
    from airflow_stepops.cli.summary import summary

    warn([run])
    _say(f"\n{summary(run, state)}" if run.steps else f"\nRun {run.run_id} of {run.dag_id}: {state}")


def _print_errors(run: Run) -> set[str]:
    """Print why steps failed, and return their labels."""
    errors = {step.label: step.error for step in run.steps if step.error is not None and step.state == "failed"}
    for label, error in errors.items():
        if error.traceback:
            _say(f"\nTraceback of {label}:\n{error.traceback}")
        else:
            _say(f"\nError of {label}:\n{error.type}: {error.message}\n")
    return set(errors)


def _leave(folder: Path) -> None:
    local = LocalRun.read(folder)
    run_id = local.run_id() if local else ""
    if local is not None and run_id:
        _say("Jobs of this run may go on. To stop them:")
        for stack in dict.fromkeys(local.stacks.values()):
            _say(f"  {cancel_command(local.dag_id, run_id, stack=stack)}")
    tidy(folder)


def _say(text: str) -> None:
    """Print a text, also from a signal's handler. When nobody reads it any more the run goes on."""
    data = f"{text}\n".encode()
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:  # a pipe whose reader has gone, a terminal that was closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _read_params(texts: Sequence[str]) -> dict[str, Any]:
    params = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r}: write it as key=value.", param_hint="--param")
        try:
            params[key] = json.loads(value)
        except ValueError:
            params[key] = value
    return params


def _log(folder: Path) -> Path:
    return folder / "log"


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(["", f"The end of {log}:", *lines[-_LOG_LINES:], ""])
