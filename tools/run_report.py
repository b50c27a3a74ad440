"""Tells people how a run of a real Airflow goes: changes of state on the way, logs of what failed."""

from __future__ import annotations

import time
from typing import Any

from airflow_stepops.cli.summary import size
from tools.airflow_client import AirflowClient

#: Key of the XCom in which a step says where and how it ran.
STEP_KEY = "stepops"
_LOG_LINES = 25


class Progress:
    """Prints one line for each change of a task's state.

    :param client: of the Airflow that runs the DAG.
    """

    def __init__(self, client: AirflowClient, dag_id: str, run_id: str) -> None:
        self._client = client
        self._dag_id = dag_id
        self._run_id = run_id
        self._started = time.monotonic()
        self._states: dict[tuple[str, int], str | None] = {}

    def look(self, instances: list[dict[str, Any]]) -> None:
        """Print what changed since the last look."""
        for instance in instances:
            key, state = (instance["task_id"], instance["map_index"]), instance["state"]
            if state not in (self._states.get(key), None, "scheduled", "queued"):
                seconds = time.monotonic() - self._started
                more = self._launched(instance) if state == "deferred" else ""
                print(f"  {seconds:6.1f} s  {label(instance):24} {state}{more}", flush=True)
            self._states[key] = state

    def _launched(self, instance: dict[str, Any]) -> str:
        facts = step_facts(self._client, self._dag_id, self._run_id, instance)
        if not facts:
            return ""
        return f": waits for {facts['where']} job {facts.get('job_name')}; {_upload(facts)}"


def failed_logs(client: AirflowClient, dag_id: str, run_id: str, instances: list[dict[str, Any]]) -> str:
    """Return the end of the log of each failed task."""
    parts = []
    for instance in instances:
        if instance["state"] == "failed":
            where = (dag_id, run_id, instance["task_id"], instance["map_index"], max(1, instance["try_number"]))
            parts += [f"--- log of {label(instance)}", *client.log(*where)[-_LOG_LINES:]]
    return "\n".join(parts)


def step_facts(client: AirflowClient, dag_id: str, run_id: str, instance: dict[str, Any]) -> dict[str, Any]:
    """Return what a step said of where and how it ran, empty for other tasks."""
    facts = client.xcom(dag_id, run_id, instance["task_id"], STEP_KEY, instance["map_index"])
    return facts if isinstance(facts, dict) else {}


def label(instance: dict[str, Any]) -> str:
    """Return the task's id, with the name of a mapped instance in brackets."""
    if instance["map_index"] < 0:
        return str(instance["task_id"])
    return f"{instance['task_id']}[{instance.get('rendered_map_index') or instance['map_index']}]"


def _upload(facts: dict[str, Any]) -> str:
    if not facts.get("uploaded_bytes"):
        return "image was there, nothing uploaded"
    return f"image uploaded: {facts['uploaded_blobs']} blobs, {size(facts['uploaded_bytes'])}"
