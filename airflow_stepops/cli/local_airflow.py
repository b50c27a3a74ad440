"""An Airflow for one run on this machine: a database of its own, the person's settings otherwise.

``dag.test`` leaves rows in the database that a live triggerer would act on, so a run never touches the person's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from airflow_stepops import settings
from airflow_stepops.errors import StepopsError
from airflow_stepops.home_folders import make_folder
from airflow_stepops.images.cache_folder import discard, touch
from airflow_stepops.images.locks import locked

#: Held as long as the run goes on.
_LOCK = "lock"
_DAY = 24 * 3600
_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


@contextmanager
def local_airflow(bundle: Path) -> Iterator[Path]:
    """Prepare this process, before it imports Airflow, and those that it starts for a run, and tidy up afterwards.

    :param bundle: folder of the DAG bundle, or a DAG file that is all of it: Airflow reads all that is in there.
    :returns: a folder for what the run leaves; the file ``log`` in it stays.
    :raises StepopsError: if the database cannot be made, or nothing can be written into the home folder.
    """
    runs = make_folder(settings.home() / "local-runs")
    _tidy_killed_runs(runs)
    folder = Path(tempfile.mkdtemp(prefix=f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-", dir=runs))
    bundles = [{"name": "dags-folder", "classpath": _BUNDLE, "kwargs": {"path": str(bundle)}}]
    os.environ |= {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    with locked(folder / _LOCK):
        try:
            shutil.copyfile(_empty_database(runs), folder / "airflow.db")
            yield folder
        finally:
            tidy(folder)


def tidy(folder: Path) -> None:
    """Remove what a run has left in its folder, but for its log."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != "log":
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _tidy_killed_runs(runs: Path) -> None:
    """Remove what runs have left that were killed."""
    for database in runs.glob("*/airflow.db"):
        with suppress(OSError), locked(database.with_name(_LOCK), wait=False) as ended:
            if ended:
                tidy(database.parent)
    for unfinished in runs.glob(".empty-*"):
        with suppress(FileNotFoundError):
            if unfinished.stat().st_mtime < time.time() - _DAY:
                discard(unfinished)


def _empty_database(runs: Path) -> Path:
    """Return a migrated database of this Airflow; made once, since it takes seconds."""
    path = runs / f"empty-{version('apache-airflow')}.db"
    if path.exists():
        touch(path)
        return path
    new = runs / f".{path.name}-{os.getpid()}"
    environment = {**os.environ, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{new}"}
    command = [sys.executable, "-P", "-c", "from airflow.utils.db import initdb; initdb()"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StepopsError(f"Airflow's database could not be made: {(done.stderr.strip() or '?').splitlines()[-1]}")
        return new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def output_into(log: Path) -> Iterator[int]:
    """Send all that this process prints into a file; yield the descriptor of the real standard output."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield kept[0]
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
