"""What a step says of itself in XCom, under the key ``stepops``: read by links, the trigger's guard and people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_stepops.links.job import JOB_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_stepops.runtime.result import JobResult


def tell(context: Context, **facts: Any) -> None:
    """Say where and how the step runs, in place of what this try has said before."""
    context["ti"].xcom_push(key=JOB_KEY, value=facts)


def told(context: Context) -> dict[str, Any]:
    """Return what this try has said so far."""
    ti = context["ti"]
    facts = ti.xcom_pull(task_ids=ti.task_id, key=JOB_KEY, map_indexes=ti.map_index)
    return facts if isinstance(facts, dict) else {}


def facts_of(result: JobResult) -> dict[str, Any]:
    """Return what there is to say of a result: times, logged metadata, and each output in short."""
    outputs: dict[str, dict[str, Any]] = {}
    for name, reference in result.outputs.items():
        outputs[name] = {"type": reference.type, "size": reference.size, "uri": reference.uri}
        if name in result.values:
            outputs[name]["value"] = result.values[name]
    return {
        "started_at": result.started_at,
        "ended_at": result.ended_at,
        "metadata": result.metadata,
        "outputs": outputs,
    }
