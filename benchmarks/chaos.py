"""Mapped steps under a real scheduler and two triggerers, while processes die and stall and a person acts at random.

In the end everything is accounted for: each task instance ended as the job of its last attempt did, with the right
result; each attempt's function began once; no job runs. One step in ten hangs at its first attempt, so that only a kill
or a person ends it, and a job that should have been stopped but was not would still be there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.clouds.local.job_folder import JobFolder
from airflow_stepops.jobs.archive import RunArchive
from tools.airflow_home import LocalAirflow, running_airflow

#: ``STEPS=20 SECONDS=60`` for a quick look.
STEPS = int(os.environ.get("STEPS", "200"))
SECONDS = float(os.environ.get("SECONDS", "600"))

#: Seconds between two faults, and the most that may pass after the last one until all has ended.
BETWEEN = (2.0, 8.0)
PEACE = 600 + 6 * STEPS

TRIGGERERS = ("triggerer", "second triggerer")

DAG = """\
import os
import time
from pathlib import Path
from uuid import uuid4

from airflow_stepops.dag import pipeline, step


@step(step_operator=True, retries=30, retry_delay=1)
def work(number: int, starts: str) -> int:
    spec = os.environ["STEPOPS_SPEC"]
    Path(starts, uuid4().hex).write_text(spec)
    time.sleep(3600 if number % 10 == 0 and "/attempt-1/" in spec else 1 + number % 3)
    return number * number


@pipeline
def chaos():
    work.partial(starts=STARTS).expand(number=list(range(STEPS)))
"""

SETTINGS = {
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
}


class Chaos:
    """A run of the steps, and what is done to it."""

    def __init__(self, airflow: LocalAirflow) -> None:
        self.airflow = airflow
        self.jobs = airflow.home / "stepops" / "jobs"
        self.faults: Counter[str] = Counter()
        self.marked: set[int] = set()
        self.run = airflow.client.trigger("chaos")

    def instances(self) -> list[dict[str, Any]]:
        """Return the task instances as Airflow has them now."""
        return [ti for ti in self.airflow.client.task_instances("chaos", self.run) if ti["map_index"] >= 0]

    def ended(self) -> bool:
        """Whether every task instance has ended."""
        states = Counter(str(ti["state"]) for ti in self.instances())
        print(f"{dict(states)}, faults: {dict(self.faults)}", flush=True)
        return sum(states.values()) == STEPS and states.keys() <= {"success", "failed"}

    def rage(self) -> None:
        """Do one random thing after the other until the time is over or all has ended."""
        doings: list[Callable[[], bool]] = [
            self.kill_triggerer,
            self.stall_triggerer,
            self.kill_scheduler,
            *[self.kill_worker] * 3,
            *[self.kill_job] * 3,
            *[self.clear] * 2,
            *[self.mark_failed] * 2,
        ]
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and not self.ended():
            time.sleep(random.uniform(*BETWEEN))
            doing = random.choice(doings)
            with suppress(httpx.HTTPStatusError, psutil.NoSuchProcess):  # it has come to an end meanwhile
                self.faults[doing.__name__] += doing()

    def kill_triggerer(self) -> bool:
        """Kill one of the triggerers; another begins."""
        self._kill_group(name := random.choice(TRIGGERERS))
        self.airflow.stop(name)
        self.airflow.start("triggerer", name)
        return True

    def stall_triggerer(self) -> bool:
        """Stop one of the triggerers for a while, mostly so long that it loses its triggers."""
        pid = self.airflow.pids[random.choice(TRIGGERERS)]
        os.killpg(pid, signal.SIGSTOP)
        time.sleep(random.uniform(5, 20))
        os.killpg(pid, signal.SIGCONT)
        return True

    def kill_scheduler(self) -> bool:
        """Kill the scheduler with its workers; another begins."""
        self._kill_group("scheduler")
        self.airflow.restart("scheduler")
        return True

    def kill_worker(self) -> bool:
        """Kill the process of a task."""
        # Not the executor's processes between tasks: one that dies while it waits for work takes their lock with it.
        workers = psutil.Process(self.airflow.pids["scheduler"]).children()
        tasks = [task for worker in workers for task in worker.children()]
        return _kill(random.choice(tasks)) if tasks else False

    def kill_job(self) -> bool:
        """Kill the process of a job."""
        pids = [pid for folder in self._job_folders() if (pid := folder.state().get("pid")) and not folder.ended]
        return _kill(psutil.Process(random.choice(pids))) if pids else False

    def clear(self) -> bool:
        """Clear a task as a person does."""
        index = random.choice(self._begun())["map_index"]
        body = {"dag_run_id": self.run, "task_ids": [["work", index]], "dry_run": False, "only_failed": False}
        self.airflow.client.request("POST", "dags/chaos/clearTaskInstances", json=body)
        self.marked.discard(index)
        return True

    def mark_failed(self) -> bool:
        """Mark a task failed as a person does."""
        index = random.choice(self._begun())["map_index"]
        self.airflow.client.set_state("chaos", self.run, "work", "failed", index)
        self.marked.add(index)
        return True

    def rest(self) -> None:
        """Let everything come to its end: a person clears what hangs."""
        deadline = time.monotonic() + PEACE
        while not self.ended() and time.monotonic() < deadline:
            hanging = [ti for ti in self.instances() if ti["map_index"] % 10 == 0 and ti["try_number"] == 1]
            tasks = [["work", ti["map_index"]] for ti in hanging if ti["state"] == "deferred"]
            if tasks:
                body = {"dag_run_id": self.run, "task_ids": tasks, "dry_run": False, "only_failed": False}
                self.airflow.client.request("POST", "dags/chaos/clearTaskInstances", json=body)
            time.sleep(5)
        command = [Path(sys.executable).with_name("stepops"), "prune", "--orphans", "--yes", "--json"]
        said = subprocess.run(command, env=self.airflow.environment, capture_output=True, text=True, check=True)
        found = [row["place"] for row in json.loads(said.stdout)["found"] if row["what"] == "orphaned job"]
        print(f"found by the sweep: {found}")

    def lost(self) -> int:
        """Count the task instances that did not end, or not as the job of their last attempt says."""
        store = ArtifactStore((self.airflow.home / "stepops" / "artifacts").as_uri())
        steps = {step.map_index: step for step in RunArchive(store).run("chaos", self.run).steps}
        lost = 0
        for ti in self.instances():
            index, state = ti["map_index"], ti["state"]
            said = steps[index].state if index in steps else "no job"
            value = steps[index].outputs.get("return_value") if index in steps else None
            right = state == "success" and said == "succeeded" and value == index * index
            if not right and not (state == "failed" and (index in self.marked or said in ("failed", "stopped"))):
                lost += 1
                print(f"lost: work[{index}] is {state} in Airflow; its job: {said}, {value}")
        return lost + STEPS - len(self.instances())

    def duplicated(self, starts: Path) -> int:
        """Count the attempts whose function began more than once."""
        began = Counter(path.read_text() for path in starts.iterdir())
        for spec in (twice := [spec for spec, times in began.items() if times > 1]):
            print(f"duplicated: {spec}")
        print(f"attempts with a job that began: {len(began)}")
        return len(twice)

    def orphaned(self) -> int:
        """Count the jobs that still run."""
        running = [folder.path.name for folder in self._job_folders() if not folder.ended]
        for name in running:
            print(f"orphaned: {name}")
        return len(running)

    def _begun(self) -> list[dict[str, Any]]:
        """Return the task instances to act on, those with a job that runs preferred."""
        instances = self.instances()
        return [ti for ti in instances if ti["state"] == "deferred"] or instances

    def _job_folders(self) -> list[JobFolder]:
        return [JobFolder(path.parent) for path in self.jobs.glob("[a-z0-9]*/request.json")]

    def _kill_group(self, name: str) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.airflow.pids[name], signal.SIGKILL)


def _kill(process: psutil.Process) -> bool:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def main() -> None:
    """Rage, rest and count; print one JSON object as the last line."""
    with tempfile.TemporaryDirectory(prefix="stepops-bench-") as name:
        starts, dags = Path(name, "starts"), Path(name, "dags")
        starts.mkdir()
        dags.mkdir()
        (dags / "chaos.py").write_text(DAG.replace("STARTS", repr(str(starts))).replace("STEPS", str(STEPS)))
        with running_airflow(Path(name, "home"), dags, settings=SETTINGS) as airflow:
            airflow.start("triggerer", TRIGGERERS[1])
            airflow.wait_for_dag("chaos")
            chaos = Chaos(airflow)
            chaos.rage()
            chaos.rest()
            bad = {"lost": chaos.lost(), "duplicated": chaos.duplicated(starts), "orphaned": chaos.orphaned()}
    print(json.dumps({"name": "chaos", "steps": STEPS, "faults": chaos.faults.total(), **bad}))
    sys.exit(any(bad.values()))


if __name__ == "__main__":
    main()
