"""What scripts and notebooks import: ``from airflow_stepops.client import Client``.

::

    client = Client()
    client.active_stack.step_operator.name
    run = client.get_run("flight_delays", "manual__2026-01-01T00:00:00+00:00")
    run.step("train", 0).metadata
    run.step("train", 0).load()

Stacks come from the stack file and runs from the artifact store alone: Airflow need not run.
"""

from __future__ import annotations

from pathlib import Path

from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.jobs.archive import RunArchive
from airflow_stepops.jobs.runs import Run, StepRun
from airflow_stepops.stacks import file
from airflow_stepops.stacks.models import Stack

__all__ = ["ArtifactReference", "Client", "Run", "Stack", "StepRun"]

#: So many runs are read unless another number is asked for.
RUNS = 20


class Client:
    """Looks at stacks and runs. It changes nothing, and reads the stack file again when that has changed.

    :param config: the stack file; default: the one of ``STEPOPS_CONFIG`` or ``[stepops] config``, else
        ``stepops.yaml`` in this folder or the DAGs folder, else the built-in ``local`` stack.
    """

    def __init__(self, config: Path | None = None) -> None:
        self._config = config

    @property
    def active_stack(self) -> Stack:
        """The stack of pipelines that name none.

        :raises StackError: if the stack file is wrong.
        """
        return self._file.stack()

    @property
    def stacks(self) -> list[Stack]:
        """All stacks, by name.

        :raises StackError: if the stack file is wrong.
        """
        return self._file.stacks()

    def stack(self, name: str | None = None) -> Stack:
        """Return a stack; ``None`` is the active one.

        :raises StackError: naming the nearest one, if there is none of this name.
        """
        return self._file.stack(name)

    def runs(self, dag_id: str | None = None, limit: int | None = RUNS, stack: str | None = None) -> list[Run]:
        """Return runs, those that began last first. What cannot be read of a run is in its ``problems``.

        :param dag_id: of one DAG alone.
        :param limit: how many at most; ``None`` for all.
        :param stack: the stack whose artifact store is looked into; default: the active one.
        :raises StackError: if the stack file is wrong, or has no such stack.
        :raises ArtifactError: if the artifact store cannot be listed.
        """
        return self._archive(stack).runs(dag_id, limit)

    def get_run(self, dag_id: str, run_id: str, stack: str | None = None) -> Run:
        """Return a run.

        :param stack: see :meth:`runs`.
        :raises RunNotFoundError: naming the nearest runs that there are.
        :raises StackError: if the stack file is wrong, or has no such stack.
        :raises ArtifactError: if the artifact store cannot be listed.
        """
        return self._archive(stack).run(dag_id, run_id)

    @property
    def _file(self) -> file.StackFile:
        return file.load(Path.cwd()) if self._config is None else file.read(self._config)

    def _archive(self, stack: str | None) -> RunArchive:
        return RunArchive(self.stack(stack).artifact_store.open())
