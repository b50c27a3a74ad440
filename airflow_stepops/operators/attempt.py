"""Which attempt a task is: what Airflow knows of it, as an identity that no other attempt shares."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from airflow_stepops.operators.versions import NEVER_EXPIRE
from airflow_stepops.runtime.spec import Attempt

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Key in Airflow's store of a task instance's state, which outlives tries and clears, and goes with the run.
_KEY = "stepops_instance"


def attempt_of(context: Context) -> Attempt:
    """Return the attempt that runs with a context."""
    ti = context["ti"]
    return Attempt(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number,
        instance=_instance(context),
        ti_id=str(ti.id),
    )


def _instance(context: Context) -> str:
    """Return what the tries of a task instance share, and no two task instances do.

    Airflow gives each try an id of its own and tells none of the earlier ones. Since 3.3 it keeps state for a task
    instance: the id of the first try is kept there. Before, tries have in common the moment at which their run was
    started, to the microsecond; clearing a run that has ended makes it another one.
    """
    ti, started_at = context["ti"], context["dag_run"].start_date
    of_run = str(ti.id) if started_at is None else f"{started_at.astimezone(UTC):%Y%m%dT%H%M%S.%f}"
    state = context.get("task_state_store")
    if state is None:
        return of_run
    kept = state.get(_KEY)
    if isinstance(kept, str) and kept:
        return kept
    # Earlier tries may have run before Airflow was upgraded to 3.3.
    instance = str(ti.id) if ti.try_number == 1 else of_run
    state.set(_KEY, instance, retention=NEVER_EXPIRE)
    return instance
