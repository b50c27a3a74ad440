"""Tells people how a run goes and went: changes of state on the way, a summary at the end."""

from __future__ import annotations

import time
from typing import Any

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


def summary(client: AirflowClient, dag_id: str, run_id: str, instances: list[dict[str, Any]], state: str) -> str:
    """Return a table: for each step where it ran, its image, seconds waiting and running; below it its outputs."""
    instances = _in_order(instances)
    said = [step_facts(client, dag_id, run_id, instance) for instance in instances]
    folder = _common_folder([output["uri"] for facts in said for output in _outputs(facts).values()])
    lines = [f"{'step':20} {'state':15} {'ran in':10} {'image':20} {'waited':>8} {'ran':>8}"]
    for instance, facts in zip(instances, said, strict=True):
        lines.append(_row(instance, facts))
        lines += [f"    {name}: {_output(output, folder)}" for name, output in _outputs(facts).items()]
    return "\n".join([*lines, "", f"Outputs are in {folder}", _uploads(said), f"Run {run_id} ended: {state}"])


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


def _row(instance: dict[str, Any], facts: dict[str, Any]) -> str:
    where = facts.get("where", "–")
    ran_in = f"{where} job" if facts.get("job_name") else where
    image = (facts.get("image_digest") or "–")[:19]
    waited = _seconds(facts.get("submitted_at"), facts.get("started_at"))
    ran = _seconds(facts.get("started_at"), facts.get("ended_at"))
    return f"{label(instance):20} {instance['state']!s:15} {ran_in:10} {image:20} {waited:>8} {ran:>8}"


def _seconds(start: float | None, end: float | None) -> str:
    return "–" if start is None or end is None else f"{max(0.0, end - start):.1f} s"


def _in_order(instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the instances in the order in which their tasks started, mapped ones by index."""
    started: dict[str, str] = {}
    for instance in instances:
        task = instance["task_id"]
        started[task] = min(started.get(task, "~"), instance["start_date"] or "~")
    return sorted(instances, key=lambda instance: (started[instance["task_id"]], instance["map_index"]))


def _outputs(facts: dict[str, Any]) -> dict[str, Any]:
    return facts.get("outputs") or {}


def _common_folder(uris: list[str]) -> str:
    """Return the longest folder that all URIs are in, with its slash, empty when there is none."""
    common = ""
    for parts in zip(*(uri.split("/")[:-1] for uri in uris), strict=False):
        if len(set(parts)) > 1:
            break
        common += f"{parts[0]}/"
    return common


def _output(output: dict[str, Any], folder: str) -> str:
    if "value" in output:
        text = repr(output["value"])
        return text if len(text) <= 120 else text[:119] + "…"
    kind = output["type"].removeprefix("builtins.")
    return f"{kind}, {_size(output['size'])}, {output['uri'].removeprefix(folder)}"


def _upload(facts: dict[str, Any]) -> str:
    if not facts.get("uploaded_bytes"):
        return "image was there, nothing uploaded"
    return f"image uploaded: {facts['uploaded_blobs']} blobs, {_size(facts['uploaded_bytes'])}"


def _uploads(all_facts: list[dict[str, Any]]) -> str:
    blobs = sum(facts.get("uploaded_blobs") or 0 for facts in all_facts)
    size = sum(facts.get("uploaded_bytes") or 0 for facts in all_facts)
    images = len({facts["image_digest"] for facts in all_facts if facts.get("image_digest")})
    plural = "s" if images != 1 else ""
    if images and not size:
        return f"{images} image{plural}, in the registry before the run: nothing uploaded"
    return f"{images} image{plural}; uploaded {blobs} blobs, {_size(size)}"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
