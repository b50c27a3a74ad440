"""A DAG that stops jobs which nobody waits for."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, dag, task

if TYPE_CHECKING:
    from airflow_stepops.jobs.runs import StepRun


def maintenance(
    stack: str | None = None, *, schedule: Any = "*/10 * * * *", dag_id: str = "stepops_maintenance", **arguments: Any
) -> DAG:
    """Return a DAG that stops jobs whose tasks have ended.

    Mostly there are none, since a task that a person ends stops its job. But a person may act while no triggerer is
    alive, and a job that nobody waits for is paid for until its own end.

    :param stack: name of the stack whose jobs are looked at; default: the active one.
    :param schedule: as Airflow's.
    :param arguments: further arguments of Airflow's DAG.
    """

    @task
    def stop_orphans(stack: str | None) -> list[str]:
        """Stop the jobs, and return what became of each."""
        from airflow_stepops.jobs import orphans
        from airflow_stepops.stacks.file import load

        of = load().stack(stack)
        found = orphans.find_orphans(of, _is_over, time.time())
        said = [(f"{one.step.job_name} {one.said}", one.failed) for one in orphans.stop_orphans(of, found)]
        for line, _ in said:
            logging.getLogger(__name__).info("[stepops] job %s", line)
        if any(failed for _, failed in said):
            raise RuntimeError("not every job could be stopped; the next run tries again")
        return [line for line, _ in said]

    arguments = {"catchup": False, "max_active_runs": 1, "tags": ["stepops"], **arguments}

    @dag(dag_id=dag_id, schedule=schedule, **arguments)
    def stepops_maintenance() -> None:
        stop_orphans(stack)

    return stepops_maintenance()


def _is_over(step: StepRun) -> bool:
    """Whether the step's task instance has ended in this Airflow, which is known by what the task has said in XCom."""
    from airflow_stepops.jobs.orphans import OVER
    from airflow_stepops.triggers.job import task_state, told_facts

    if task_state(step) not in OVER:
        return False
    facts = told_facts(step)
    return facts is not None and facts.get("instance") == step.attempt.instance
