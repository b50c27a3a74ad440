"""The DAGs of a file, as Airflow would read them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_stepops import settings
from airflow_stepops.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from airflow.sdk import DAG


def bundle_of(file: Path) -> Path:
    """Return the DAG bundle that a file is in: the DAGs folder, else the file alone."""
    dags_folder = settings.dags_folder()
    return dags_folder if file.is_relative_to(dags_folder) else file


def read_dags(file: Path) -> dict[str, DAG]:
    """Import a DAG file and return its DAGs by id.

    :raises ConfigurationError: if the file cannot be imported, or defines no DAG.
    """
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef]

    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # as Airflow has the DAGs folder there, for the modules beside the file
    bag = DagBag(dag_folder=str(file), safe_mode=False)
    for trace in bag.import_errors.values():
        lines = re.findall(rf'File "{re.escape(str(file))}", line (\d+)', trace)
        where = f" (line {lines[-1]})" if lines else ""
        raise ConfigurationError(f"{file} cannot be imported: {trace.strip().splitlines()[-1]}{where}")
    if not bag.dags:
        raise ConfigurationError(f"{file} defines no DAG: call the function that @pipeline or @dag decorates.")
    return dict(bag.dags)


def choose_dag(dags: dict[str, DAG], dag_id: str | None, file: Path) -> DAG:
    """Return the DAG of this id, or the only one.

    :raises ConfigurationError: if there is none of this id, or several and no id.
    """
    if dag_id is None:
        if len(dags) > 1:
            raise ConfigurationError(
                f"{file} defines several DAGs: choose one with --dag-id {' | '.join(sorted(dags))}."
            )
        return next(iter(dags.values()))
    if dag_id not in dags:
        raise ConfigurationError(
            f"{file} defines no DAG {dag_id!r}.{did_you_mean(dag_id, dags)} It defines: {', '.join(sorted(dags))}."
        )
    return dags[dag_id]


def step_arguments(dag: DAG) -> dict[str, Mapping[str, Any]]:
    """Return the arguments of :class:`~airflow_stepops.operators.step.StepTask` of every step, by task id.

    Those that a mapped step leaves at their defaults are missing.
    """
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_stepops.operators.step import StepTask

    found: dict[str, Mapping[str, Any]] = {}
    for task in dag.tasks:
        if isinstance(task, StepTask):
            found[task.task_id] = vars(task)
        elif isinstance(task, MappedOperator) and issubclass(task.operator_class, StepTask):
            found[task.task_id] = {"python_callable": task.python_callable, **task.partial_kwargs}  # type: ignore[attr-defined]
    return found
