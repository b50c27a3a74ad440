"""The process in which ``stepops run`` runs a DAG.

It is one of its own because Airflow sets its own handler of SIGTERM and takes Ctrl-C for a failed task, after which the
next one begins. A process that was killed launches nothing more.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_stepops.cli.dag_files import choose_dag, read_dags, step_arguments
from airflow_stepops.cli.local_airflow import output_into
from airflow_stepops.cli.local_run import LocalRun
from airflow_stepops.cli.main import QUIET, exit_code
from airflow_stepops.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from airflow.sdk import DAG


class DagProcess:
    """Runs a DAG in the environment of this process. It ends with this process, however that ends.

    :param folder: of :func:`~airflow_stepops.cli.local_airflow.local_airflow`.
    :param file: the DAG file.
    :param dag_id: which DAG; not needed where the file defines only one.
    :param params: of the run.
    """

    def __init__(self, folder: Path, file: Path, dag_id: str | None, params: Mapping[str, Any]) -> None:
        arguments = json.dumps([str(folder), str(file), dag_id, params])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "airflow_stepops.cli.dag_process", arguments],
            stdin=subprocess.PIPE,  # nothing is written: its end tells that this process has ended
            env={name: value for name, value in os.environ.items() if (name, value) != QUIET},  # its log is a file
            start_new_session=True,  # Ctrl-C reaches this process alone
        )

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; return the exit code, ``None`` while it runs.

        :returns: 0 when the run succeeded; less than 0 when the process was killed.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it at once, with what it has started; jobs go on."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _main() -> int:
    _end_with_parent()
    folder, file, dag_id, params = json.loads(sys.argv[1])
    return exit_code(lambda: _run(Path(folder), Path(file), dag_id, params))


def _run(folder: Path, file: Path, dag_id: str | None, params: dict[str, Any]) -> int:
    with output_into(folder / "log"):
        dag = choose_dag(read_dags(file), dag_id, file)
        _check_params(dag, params)
        stacks = {task_id: arguments.get("stack") for task_id, arguments in step_arguments(dag).items()}
        LocalRun(folder, dag.dag_id, stacks).write()
        ended = dag.test(run_conf=params)
    return 0 if str(ended.state) == "success" else 1


def _check_params(dag: DAG, given: Mapping[str, Any]) -> None:
    for key in given:
        if key not in dag.params:
            raise ConfigurationError(
                f"DAG {dag.dag_id!r} has no param {key!r}.{did_you_mean(key, dag.params)} It has: "
                f"{', '.join(sorted(dag.params)) or 'none'}."
            )


def _end_with_parent() -> None:
    lifeline = os.dup(0)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="stepops-lifeline", daemon=True).start()


if __name__ == "__main__":
    sys.exit(_main())
