"""``stepops run``: one run of a DAG on this machine, without a scheduler."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_stepops.cli import place
from airflow_stepops.cli.dag_files import bundle_of, choose_dag, read_dags
from airflow_stepops.cli.local_airflow import local_airflow, output_into, tidy
from airflow_stepops.cli.main import INTERRUPTED
from airflow_stepops.errors import ConfigurationError, RunNotFoundError, did_you_mean

if TYPE_CHECKING:
    from airflow.sdk import DAG

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
    """Run a DAG; the exit code is 0 when it succeeded, else 1."""
    given = _read_params(params)
    file = place.dag_file(file)
    place.use(file, stack)
    with local_airflow(bundle_of(file)) as folder:
        with output_into(folder / "log") as screen:
            dag = choose_dag(read_dags(file), dag_id, file)
            _check_params(dag, given)
            os.write(screen, f"Run of {dag.dag_id}; its log: {folder / 'log'}\n".encode())
            with _progress(dag.dag_id, folder, screen):
                ended = dag.test(run_conf=given)
        told = _tell(dag.dag_id, ended.run_id)
        succeeded = str(ended.state) == "success"
        if not succeeded and not told:  # an ordinary task failed
            click.echo(_end_of(folder / "log"))
    if not succeeded:
        click.echo(f"Run {ended.run_id} failed.")
    return 0 if succeeded else 1


def _tell(dag_id: str, run_id: str) -> bool:
    """Print how the steps went; return whether that says why one failed."""
    from airflow_stepops.cli.summary import summary
    from airflow_stepops.client import Client

    try:
        run = Client().get_run(dag_id, run_id)
    except RunNotFoundError:  # a DAG of ordinary tasks
        return False
    click.echo(f"\n{summary(run)}")
    errors = {step.label: step.error for step in run.steps if step.error is not None}
    for label, error in errors.items():
        click.echo(f"\nTraceback of {label}:\n{error.traceback}")
    return bool(errors)


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


def _check_params(dag: DAG, given: dict[str, Any]) -> None:
    for key in given:
        if key not in dag.params:
            raise ConfigurationError(
                f"DAG {dag.dag_id!r} has no param {key!r}.{did_you_mean(key, dag.params)} It has: "
                f"{', '.join(sorted(dag.params)) or 'none'}."
            )


@contextmanager
def _progress(dag_id: str, folder: Path, screen: int) -> Iterator[None]:
    """Print each change of a task's state, and stop the run's jobs on Ctrl-C, which Airflow takes for a failed task."""
    started, over, interrupted = time.monotonic(), threading.Event(), threading.Event()
    seen: dict[str, str | None] = {}

    def look() -> None:
        for instance in _task_instances():
            task, state = instance.task_id, instance.state
            task = task if instance.map_index < 0 else f"{task}[{instance.map_index}]"
            if state not in _SILENT and seen.get(task) != state:
                os.write(screen, f"  {time.monotonic() - started:6.1f} s  {task:24} {state}\n".encode())
            seen[task] = state

    def watch() -> None:
        while not over.wait(_LOOK_SECONDS):
            look()
            if interrupted.is_set():
                os.write(screen, b"\nStopping the jobs of this run; Ctrl-C again leaves them running.\n")
                for line in _stop_jobs(dag_id):
                    os.write(screen, f"  {line}\n".encode())
                tidy(folder)
                os._exit(INTERRUPTED)

    def interrupt(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        interrupted.set()  # whatever the main thread is at may hold locks

    # Configures all of Airflow's tables: a thread that does so waits for ever for a main thread that imports one.
    look()
    watcher = threading.Thread(target=watch, name="stepops-progress", daemon=True)
    signal.signal(signal.SIGINT, interrupt)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        look()


def _stop_jobs(dag_id: str) -> Iterator[str]:
    from airflow_stepops.client import Client
    from airflow_stepops.jobs.cancel import cancel_jobs

    client = Client()
    for run_id in {instance.run_id for instance in _task_instances()}:
        with suppress(RunNotFoundError):  # no step has begun
            run = client.get_run(dag_id, run_id)
            for job in cancel_jobs(client.active_stack, run.steps):
                yield f"{job.step.label}: job {job.step.job_name} {job.said}"


def _task_instances() -> list[Any]:
    """Return run, task, map index and state of each task instance of the only run in the database."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        columns = (TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state)
        return session.query(*columns).all()


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(["", f"The end of {log}:", *lines[-_LOG_LINES:], ""])
