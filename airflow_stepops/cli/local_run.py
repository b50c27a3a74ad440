"""A run on this machine as its folder tells of it, while its process runs and after that was killed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE, _DATABASE = "run.json", "airflow.db"

_RUN = "SELECT run_id, state FROM dag_run WHERE dag_id = ?"
_TASKS = "SELECT task_id, map_index, try_number, state FROM task_instance WHERE dag_id = ? ORDER BY map_index"


@dataclass(frozen=True)
class TaskState:
    """A task instance as Airflow has it.

    :param state: Airflow's word; ``None`` before it is scheduled.
    """

    task_id: str
    map_index: int
    try_number: int
    state: str | None

    @property
    def label(self) -> str:
        """The task's id, with the index of a mapped one."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


@dataclass(frozen=True)
class LocalRun:
    """The run of a folder that :func:`~airflow_stepops.cli.local_airflow.local_airflow` made.

    :param stacks: task id of every step of the DAG → name of its stack, ``None`` for the active one.
    """

    folder: Path
    dag_id: str
    stacks: Mapping[str, str | None]

    def write(self) -> None:
        """Let the folder tell of the run."""
        new = self.folder / f".{_FILE}"
        new.write_text(json.dumps({"dag_id": self.dag_id, "stacks": self.stacks}))
        new.replace(self.folder / _FILE)

    @classmethod
    def read(cls, folder: Path) -> LocalRun | None:
        """Return the run of a folder; ``None`` while its DAG is being read."""
        try:
            return cls(folder, **json.loads((folder / _FILE).read_text()))
        except FileNotFoundError:
            return None

    def run_id(self) -> str:
        """Return the run's id, ``""`` before it has one."""
        rows = self._rows(_RUN)
        return str(rows[0][0]) if rows else ""

    def is_over(self) -> bool:
        """Return whether Airflow has brought the run to its end."""
        return any(state in ("success", "failed") for _, state in self._rows(_RUN))

    def tasks(self) -> list[TaskState]:
        """Return the run's task instances.

        :raises sqlite3.OperationalError: when the process of the run does not let go of the database for seconds.
        """
        return [TaskState(*row) for row in self._rows(_TASKS)]

    def _rows(self, query: str) -> list[Any]:
        # Without Airflow, which takes seconds to import.
        with closing(sqlite3.connect(self.folder / _DATABASE)) as database:
            return database.execute(query, (self.dag_id,)).fetchall()
