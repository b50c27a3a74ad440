"""A real Airflow on this machine: api-server, scheduler, DAG processor and triggerer over SQLite.

In a test::

    from tools.airflow_home import running_airflow

    with running_airflow(tmp_path / "home", dags_folder) as airflow:
        airflow.wait_for_dag("flights")
        run = airflow.client.trigger("flights", {"day": "2013-01-01"})
        assert airflow.client.wait("flights", run, timeout=120) == "success"
        airflow.restart("triggerer")            # or airflow.stop("triggerer"), airflow.start("triggerer")
        airflow.start("triggerer", "second triggerer")
        os.kill(airflow.pids["triggerer"], signal.SIGSTOP)

The home folder holds the database, ``logs/`` of tasks and ``<component>.log``. It may be used again.
``settings`` are further ``AIRFLOW__SECTION__KEY`` or ordinary variables for all components; everything else that
starts with ``AIRFLOW`` or ``STEPOPS_`` in the caller's environment is not handed on. All processes are gone when the
block is left or the caller dies, jobs of the ``local`` step operator among them.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tools.airflow_client import AirflowClient

LOGIN = "admin"
PASSWORD = "admin"

COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}

_TOOLS = Path(__file__).parent
_LOCK_SECONDS = 15.0
_GRACE_SECONDS = 5.0


class AirflowStartError(Exception):
    """A part of Airflow could not be started, or has ended; the message ends with the tail of its log."""


class LocalAirflow:
    """Airflow's processes over one home folder.

    :param home: folder for the database, logs and passwords; made when missing.
    :param dags: the folder with DAG files.
    :param port: of the api-server; default: a free one.
    :param settings: further environment variables for all components.
    """

    def __init__(
        self, home: Path, dags: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.home = home.resolve()
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.environment = environment(self.home, dags.resolve(), self.port) | dict(settings or {})
        self.client = AirflowClient(self.url, LOGIN, PASSWORD)
        self.pids: dict[str, int] = {}
        self._keeper: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Address of the UI and the API."""
        return f"http://localhost:{self.port}"

    def start_all(self, timeout: float = 120) -> None:
        """Migrate the database, start every component and wait until all say that they are healthy.

        :raises AirflowStartError: if one ends, or the time runs out.
        """
        with (self.home / "lock").open("w") as lock:
            self._wait_for(lock)
            self._keeper = subprocess.Popen(
                [sys.executable, _TOOLS / "process_keeper.py", str(_GRACE_SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environment,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
        (self.home / "passwords.json").write_text(json.dumps({LOGIN: PASSWORD}))
        self._migrate()
        for component in COMPONENTS:
            self.start(component)
        self._wait_until_healthy(timeout)

    def start(self, component: str, name: str | None = None) -> None:
        """Start one component; does not wait.

        :param name: what to call it, for a second one of its kind.
        """
        name = name or component
        command = [sys.executable, "-m", "airflow", *COMPONENTS[component]]
        answer = self._ask(do="start", name=name, command=command, log=str(self._log_file(name)))
        self.pids[name] = answer["pid"]

    def stop(self, component: str) -> None:
        """Stop one component by SIGTERM, after some seconds by SIGKILL, with all processes of its group."""
        self._ask(do="stop", name=component)
        del self.pids[component]

    def restart(self, component: str) -> None:
        """Stop one component and start it again; does not wait."""
        self.stop(component)
        self.start(component)

    def stop_all(self) -> None:
        """Stop everything and wait for it."""
        self.client.close()
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
            self._keeper.wait()
            self._keeper = None
            self.pids.clear()

    def wait_for_dag(self, dag_id: str, timeout: float = 60) -> None:
        """Wait until the DAG processor has stored a DAG.

        :raises AirflowStartError: with the tracebacks of DAG files that cannot be imported.
        """
        deadline = time.monotonic() + timeout
        while not self.client.has_dag(dag_id):
            errors = self.client.import_errors()
            if time.monotonic() > deadline or errors:
                problems = "\n".join(f"{file}:\n{trace}" for file, trace in errors.items())
                raise AirflowStartError(f"There is no DAG {dag_id!r} after {timeout:.0f} s. {problems}")
            time.sleep(0.5)

    def check(self) -> None:
        """Check that every component runs.

        :raises AirflowStartError: naming the one that ended.
        """
        for component, code in self._ask(do="status").items():
            if code is not None:
                raise AirflowStartError(f"{component} ended with {code}:\n{_tail(self._log_file(component))}")

    def _wait_for(self, lock: IO[str]) -> None:
        """Take the home's lock, which the keeper holds until the last process is gone."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise AirflowStartError(f"Another Airflow runs in {self.home}: stop it first.") from None
                time.sleep(0.1)
            else:
                return

    def _migrate(self) -> None:
        """Bring the database to the schema of the installed Airflow, once for each version."""
        done = self.home / "migrated"
        version = _airflow_version()
        if done.exists() and done.read_text() == version:
            return
        log = self._log_file("migrate")
        with log.open("wb") as output:
            command = [sys.executable, "-m", "airflow", "db", "migrate"]
            code = subprocess.run(command, env=self.environment, stdout=output, stderr=output, check=False).returncode
        if code:
            raise AirflowStartError(f"airflow db migrate ended with {code}:\n{_tail(log)}")
        done.write_text(version)

    def _wait_until_healthy(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        health: Mapping[str, str | None] = {}
        while len(health) < 4 or set(health.values()) != {"healthy"}:
            self.check()
            if time.monotonic() > deadline:
                raise AirflowStartError(f"Airflow is not healthy after {timeout:.0f} s: {dict(health)}")
            time.sleep(0.25)
            health = self.client.health()

    def _ask(self, **request: Any) -> dict[str, Any]:
        if self._keeper is None:
            raise AirflowStartError("Airflow is not running: call start_all() first.")
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps(request) + "\n")
        self._keeper.stdin.flush()
        return dict(json.loads(self._keeper.stdout.readline()))

    def _log_file(self, component: str) -> Path:
        return self.home / f"{component}.log"


@contextmanager
def running_airflow(
    home: Path, dags: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[LocalAirflow]:
    """Start Airflow, hand it out, and stop it whatever happens. Parameters: see :class:`LocalAirflow`."""
    airflow = LocalAirflow(home, dags, port=port, settings=settings)
    try:
        airflow.start_all()
        yield airflow
    finally:
        airflow.stop_all()


def environment(home: Path, dags: Path, port: int) -> dict[str, str]:
    """Return the environment of a small Airflow: SQLite, a few worker processes, one admin."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "STEPOPS_"))}
    # What must be equal in all processes and after a restart, and is needed on this machine only.
    secret = hashlib.sha256(str(home).encode()).digest()
    return kept | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secret).decode(),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{LOGIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secret.hex(),
        "AIRFLOW__API_AUTH__JWT_SECRET": secret.hex(),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
        # A worker may notice the end of a task this late. When a job is done before its deferral was noticed, Airflow
        # takes the task for lost; jobs here are short, so the default of 5 seconds would be too long.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_PROXY": "localhost,127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _airflow_version() -> str:
    from importlib.metadata import version

    return version("apache-airflow-core")


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
