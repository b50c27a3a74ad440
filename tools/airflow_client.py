"""A small client of Airflow's REST API: what the demo, tests and benchmarks ask of a running Airflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx

FINISHED = ("success", "failed")


class AirflowClient:
    """Asks a running Airflow through ``/api/v2``.

    :param url: address of the api-server, without a slash at its end.
    :raises httpx.HTTPStatusError: from every method, when Airflow refuses the request.
    """

    def __init__(self, url: str, login: str, password: str) -> None:
        self._credentials = {"username": login, "password": password}
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send one request and return the JSON of the answer (``None`` for an empty one).

        :param path: below ``/api/v2/``.
        :param options: as for ``httpx.Client.request``.
        """
        if "Authorization" not in self._http.headers:
            self._log_in()
        response = self._http.request(method, f"/api/v2/{path}", **options)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._log_in()
            response = self._http.request(method, f"/api/v2/{path}", **options)
        response.raise_for_status()
        return response.json() if response.content else None

    def _log_in(self) -> None:
        response = self._http.post("/auth/token", json=self._credentials)
        response.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def health(self) -> dict[str, str | None]:
        """Return the state of each part of Airflow (``"healthy"`` …), empty while the api-server does not answer."""
        try:
            response = self._http.get("/api/v2/monitor/health", timeout=10)
            response.raise_for_status()
        except httpx.HTTPError:
            return {}
        return {part: (info or {}).get("status") for part, info in response.json().items()}

    def has_dag(self, dag_id: str) -> bool:
        """Whether the DAG has been parsed and stored."""
        try:
            return bool(self.request("GET", f"dags/{dag_id}")["dag_id"])
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return False
            raise

    def import_errors(self) -> dict[str, str]:
        """Return the traceback of each DAG file that could not be imported, by file name."""
        errors = self.request("GET", "importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run the DAG."""
        self.request("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, run_id: str | None = None) -> str:
        """Start a run and return its id.

        :param conf: params of the run.
        :param run_id: its id; default: one that Airflow makes.
        """
        body = {"logical_date": None, "conf": conf or {}} | ({"dag_run_id": run_id} if run_id else {})
        return str(self.request("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a run: ``state``, ``start_date``, ``end_date`` …"""
        return dict(self.request("GET", f"dags/{dag_id}/dagRuns/{run_id}"))

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run that has ended, with its task instances."""
        self.request("DELETE", f"dags/{dag_id}/dagRuns/{run_id}")

    def end_unfinished_runs(self, dag_id: str) -> None:
        """Mark the runs failed that have not finished, such as those of an Airflow that was stopped in the middle."""
        path = f"dags/{dag_id}/dagRuns"
        for run in self.request("GET", path, params={"state": ["queued", "running"]})["dag_runs"]:
            self.request("PATCH", f"{path}/{run['dag_run_id']}", json={"state": "failed"})

    def wait(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout: float = 300,
        every: float = 1.0,
        look: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> str:
        """Wait until a run has finished and return its state.

        :param timeout: seconds.
        :param every: seconds between two looks.
        :param look: called with the task instances at each look, and once more at the end.
        :raises TimeoutError: with the state of each task.
        """
        deadline = time.monotonic() + timeout
        while True:
            state = str(self.run(dag_id, run_id)["state"])
            if look is not None:
                look(self.task_instances(dag_id, run_id))
            if state in FINISHED:
                return state
            if time.monotonic() > deadline:
                states = {_key(ti): ti["state"] for ti in self.task_instances(dag_id, run_id)}
                raise TimeoutError(f"run {run_id} of {dag_id} is {state} after {timeout:.0f} s: {states}")
            time.sleep(every)

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: tuple[str, ...],
        *,
        map_index: int = -1,
        timeout: float = 120,
    ) -> dict[str, Any]:
        """Wait until a task instance is in one of the states, and return it.

        :raises TimeoutError: naming its state.
        """
        deadline = time.monotonic() + timeout
        while True:
            # A mapped task has no instances before it is expanded.
            found = [ti for ti in self.task_instances(dag_id, run_id) if ti["task_id"] == task_id]
            instance = next((ti for ti in found if ti["map_index"] == map_index), {"state": "not there yet"})
            if instance["state"] in states:
                return instance
            if time.monotonic() > deadline:
                raise TimeoutError(f"task {task_id} is {instance['state']}, not {states}, after {timeout:.0f} s")
            time.sleep(0.5)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run, mapped ones with their ``map_index``."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.request(
                "GET",
                f"dags/{dag_id}/dagRuns/{run_id}/taskInstances",
                params={"limit": 100, "offset": len(found)},
            )
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return one task instance."""
        return dict(self.request("GET", _instance(dag_id, run_id, task_id, map_index)))

    def set_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task instance ``"success"``, ``"failed"`` or ``"skipped"``, as a person does in the UI."""
        self.request("PATCH", _instance(dag_id, run_id, task_id, map_index), json={"new_state": state})

    def clear(self, dag_id: str, run_id: str, task_ids: list[str]) -> None:
        """Clear tasks of a run, running ones too, so that they run again."""
        body = {"dag_run_id": run_id, "task_ids": task_ids, "dry_run": False, "only_failed": False}
        self.request("POST", f"dags/{dag_id}/clearTaskInstances", json=body)

    def log(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int = 1) -> list[str]:
        """Return the messages of a task's log; after an error's message, each of its exceptions as "type: value"."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        answer = self.request("GET", path, params={"map_index": map_index, "full_content": True})
        return [line for event in answer["content"] for line in _messages(event)]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the stored JSON of an XCom, ``None`` when there is none."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        try:
            return self.request("GET", path, params={"map_index": map_index, "deserialize": False})["value"]
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise

    def slots(self, pool: str = "default_pool") -> dict[str, int]:
        """Return the slots of a pool: ``occupied_slots``, ``deferred_slots``, ``open_slots`` …"""
        return dict(self.request("GET", f"pools/{pool}"))


def _instance(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
    return path if map_index < 0 else f"{path}/{map_index}"


def _key(instance: dict[str, Any]) -> str:
    index = instance["map_index"]
    return str(instance["task_id"]) if index < 0 else f"{instance['task_id']}[{index}]"


def _messages(event: dict[str, Any] | str) -> list[str]:
    if isinstance(event, str):
        return [event]
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in event.get("error_detail") or []]
    return [str(event.get("event", "")), *errors]
