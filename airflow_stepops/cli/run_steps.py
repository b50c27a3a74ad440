"""The steps of a run on this machine, in the artifact stores of all the stacks that they use."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_stepops import settings
from airflow_stepops.cli.local_run import LocalRun, TaskState
from airflow_stepops.errors import RunNotFoundError, StepopsError

if TYPE_CHECKING:
    from airflow_stepops.client import Run, StepRun
    from airflow_stepops.jobs.cancel import Cancelled
    from airflow_stepops.stacks.models import Stack

#: So long a create call that was under way when its process was killed may take to make its job.
_LAUNCH_SECONDS = 20.0
_LOOK_AGAIN_SECONDS = 1.0

#: States of task instances that Airflow has not started, and of those that it is done with, in words for people.
_NOT_BEGUN = (None, "scheduled", "queued")
_OVER = {
    "success": "succeeded",
    "failed": "failed",
    "upstream_failed": "upstream failed",
    "skipped": "skipped",
    "removed": "removed",
}


class RunSteps:
    """Reads the steps of a run, or stops their jobs. A stack that cannot be read does not keep it from the others.

    :param local: the run, whose process has ended.
    :param say: called with lines for people.
    """

    def __init__(self, local: LocalRun, say: Callable[[str], None]) -> None:
        self._local = local
        self._run_id = local.run_id()
        self._say = say
        self._tasks = {task.label: task for task in local.tasks() if task.task_id in local.stacks}

    def read(self) -> Run:
        """Return the run with all its steps."""
        return self._whole(self._in_each_store(self._get))

    def stop(self) -> Run:
        """Stop every job of the run and return the run with all its steps.

        A job that was being launched may appear only now, so it is looked for again for a while.
        """
        deadline = time.monotonic() + _LAUNCH_SECONDS
        return self._whole(self._in_each_store(lambda stack: self._stop(stack, deadline)))

    def _in_each_store(self, look: Callable[[Stack], Run]) -> list[Run]:
        """Call a function for a stack of each artifact store, for all at the same time: some may answer late."""
        from airflow_stepops.client import Client

        client = Client()
        stores: dict[str, list[Stack]] = defaultdict(list)
        for name in dict.fromkeys(self._local.stacks.values()):
            try:
                stack = client.stack(name)
                stores[stack.artifact_store.root()].append(stack)
            except StepopsError as error:
                self._say_unreadable(name, error)
        with ThreadPoolExecutor(len(stores) or 1, "stepops-stores") as threads:
            runs = list(threads.map(lambda stacks: self._first(look, stacks), stores.values()))
        return [run for run in runs if run is not None]

    def _first(self, look: Callable[[Stack], Run], stacks: Sequence[Stack]) -> Run | None:
        """Return what the first stack gives that can be read."""
        errors: dict[str, Exception] = {}
        for stack in stacks:
            try:
                return look(stack)
            except RunNotFoundError:  # none of its steps has begun
                return None
            except Exception as error:  # noqa: BLE001 - told below, and the other stores must be looked into
                errors[stack.name] = error
        for name, reason in errors.items():
            self._say_unreadable(name, reason)
        return None

    def _get(self, stack: Stack) -> Run:
        from airflow_stepops.client import Client

        return Client().get_run(self._local.dag_id, self._run_id, stack.name)

    def _stop(self, stack: Stack, deadline: float) -> Run:
        seen: dict[str, Cancelled] = {}
        while True:
            is_last = time.monotonic() >= deadline
            run = self._get(stack)
            launching = self._launching(run)
            for job in _cancel(stack, run.steps):
                name = job.step.job_name
                if name not in seen and (is_last or not job.failed or name not in launching):
                    seen[name] = job
                    self._say_stopped(job, stack)
            run = self._get(stack)
            if is_last or not self._launching(run) - set(seen):
                return replace(run, steps=tuple(_settled(step, seen.get(step.job_name)) for step in run.steps))
            time.sleep(_LOOK_AGAIN_SECONDS)

    def _launching(self, run: Run) -> set[str]:
        """Return the names of jobs that the service may be about to make.

        Not those of earlier attempts: a later one has looked for them.
        """
        return {
            step.job_name
            for step in run.steps
            if step.job_name and not step.job_id and not step.ended and self._task_state(step) not in _OVER
        }

    def _task_state(self, step: StepRun) -> str | None:
        return self._tasks[step.label].state if step.label in self._tasks else None

    def _whole(self, runs: Sequence[Run]) -> Run:
        """Return one run with the steps of several, and those that no artifact store knows, as Airflow has them."""
        from airflow_stepops.client import Run

        steps = [step for run in runs for step in run.steps]
        began = {
            task_id: min(step.attempts[0].began_at for step in steps if step.task_id == task_id)
            for task_id in {step.task_id for step in steps}
        }
        steps.sort(key=lambda step: (began[step.task_id], step.task_id, step.map_index))
        known = {step.label for step in steps}
        rest = [task for label, task in self._tasks.items() if label not in known]
        rest.sort(key=lambda task: (list(self._local.stacks).index(task.task_id), task.map_index))
        return Run(
            self._local.dag_id,
            self._run_id,
            min((run.began_at for run in runs), default=datetime.now(UTC)),
            (*(self._ended(step) for step in steps), *(self._unknown(task) for task in rest)),
            tuple(problem for run in runs for problem in run.problems),
        )

    def _ended(self, step: StepRun) -> StepRun:
        """Return a step with its state now that the process of the run has ended."""
        if step.ended:
            return step
        if self._task_state(step) == "failed":  # at the launch: nobody waited for the job's end
            return replace(step, state="failed")
        return replace(step, state="stopped") if step.entry is None else step

    def _unknown(self, task: TaskState) -> StepRun:
        """Return a step that left nothing."""
        from airflow_stepops.client import StepRun
        from airflow_stepops.runtime.spec import Attempt

        state = "not begun" if task.state in _NOT_BEGUN else _OVER.get(str(task.state), "stopped")
        number = max(task.try_number, 1)
        attempt = Attempt(self._local.dag_id, self._run_id, task.task_id, task.map_index, number, instance="", ti_id="")
        return StepRun(attempt, state, datetime.now(UTC))

    def _say_stopped(self, job: Cancelled, stack: Stack) -> None:
        step = job.step
        self._say(f"  {step.label}: job {step.job_name}: {job.said}")
        if job.failed:
            if step.console_url:
                self._say(f"    See to it at {step.console_url}")
            which = [step.task_id, *(["--map-index", str(step.map_index)] if step.map_index >= 0 else [])]
            self._say(f"    To try again: {cancel_command(step.dag_id, step.run_id, *which, stack=stack.name)}")

    def _say_unreadable(self, stack: str | None, error: Exception) -> None:
        name = f"stack {stack!r}" if stack else "the active stack"
        text = str(error) if isinstance(error, StepopsError) else f"{type(error).__name__}: {error}"
        self._say(f"  {name} cannot be read: {' '.join(text.split())}")
        command = cancel_command(self._local.dag_id, self._run_id, stack=stack)
        self._say(f"    Jobs of its steps may go on. When it can be read again: {command}")


def cancel_command(dag_id: str, run_id: str, *more: str, stack: str | None) -> str:
    """Return the command that stops jobs of a run.

    :param more: which of its steps; default: all.
    :param stack: name of their stack, ``None`` for the active one.
    """
    stack = stack or settings.get("stack")
    return shlex.join(["stepops", "cancel", dag_id, run_id, *more, *(["--stack", stack] if stack else [])])


def _cancel(stack: Stack, steps: Sequence[StepRun]) -> Iterator[Cancelled]:
    from airflow_stepops.jobs.cancel import cancel_jobs

    return cancel_jobs(stack, steps, reason="'stepops run' was interrupted")


def _settled(step: StepRun, job: Cancelled | None) -> StepRun:
    """Return a step with its state once its job was seen to have ended, of which nobody may have told the ledger."""
    return step if step.ended or job is None or job.failed else replace(step, state="ended")
