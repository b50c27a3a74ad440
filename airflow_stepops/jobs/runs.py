"""Runs of pipelines as the artifact store tells of them: steps, their attempts, jobs and outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.artifacts.values import load
from airflow_stepops.errors import RunNotFoundError, did_you_mean
from airflow_stepops.jobs.ledger import LedgerEntry
from airflow_stepops.runtime.result import RETURN_VALUE, StepError
from airflow_stepops.runtime.spec import Attempt

#: Where a step without a step operator runs.
WORKER = "worker"


@dataclass(frozen=True)
class StepRun:
    """An attempt of a step; a run has the last one of each task instance.

    :param attempt: which it is; its fields are attributes of the step, too.
    :param state: ``pending``, ``running``, ``stopping``, ``succeeded``, ``failed`` or ``stopped``. What a job has left
        decides, else the last word of the ledger, which hears of a job when it is launched and when it has ended. A
        step in the worker that has begun and left nothing is ``unknown``: it still runs, or its worker died.
    :param where: flavor of the step operator, or ``worker``.
    :param step_operator: its name; ``""`` in the worker.
    :param job_name: ``""`` in the worker, and where the attempt ended before it had a job.
    :param image: reference of the job's image.
    :param image_digest: digest of its manifest, ``""`` where the reference has none.
    :param uploaded_blobs: how many blobs of the image were uploaded for this job.
    :param began_at: when the service took the job, or the worker began; else when the first document was written.
    :param submitted_at: when the service took the job; ``None`` in the worker.
    :param started_at: of the step itself: what lies between is waiting for a machine, the image and the inputs.
    :param metadata: what the step logged with ``log_metadata``.
    :param error: what the step raised, or the kind of end as ``type`` and its reason as ``message``.
    :param outputs: by name: small JSON values themselves, references for all else.
    :param references: by name: the reference of every output.
    :param earlier: attempts of the same task instance before this one, the first one first.
    :param entry: the ledger's entry of the job.
    :param store: holds the outputs.
    """

    attempt: Attempt
    state: str
    began_at: datetime
    where: str = ""
    step_operator: str = ""
    job_name: str = ""
    job_id: str = ""
    console_url: str = ""
    image: str = ""
    image_digest: str = ""
    uploaded_blobs: int = 0
    uploaded_bytes: int = 0
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    error: StepError | None = None
    outputs: dict[str, Any] = field(default_factory=dict)
    references: dict[str, ArtifactReference] = field(default_factory=dict)
    earlier: tuple[StepRun, ...] = field(default=(), repr=False)
    entry: LedgerEntry | None = field(default=None, repr=False)
    store: ArtifactStore | None = field(default=None, repr=False, compare=False)

    @property
    def dag_id(self) -> str:
        """Id of the DAG."""
        return self.attempt.dag_id

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.attempt.run_id

    @property
    def task_id(self) -> str:
        """Id of the task, with its task groups."""
        return self.attempt.task_id

    @property
    def map_index(self) -> int:
        """Index of a mapped task, -1 when it is not mapped."""
        return self.attempt.map_index

    @property
    def try_number(self) -> int:
        """Number of the attempt, from 1."""
        return self.attempt.try_number

    @property
    def label(self) -> str:
        """The task's id, with the index of a mapped one: ``train[2]``."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ("succeeded", "failed", "stopped")

    @property
    def attempts(self) -> tuple[StepRun, ...]:
        """All attempts, this one last."""
        return (*self.earlier, self)

    @property
    def open_jobs(self) -> tuple[StepRun, ...]:
        """Attempts with jobs that may still run, as far as their ledgers know; one attempt for each job.

        A job that has left its result may not have ended. An attempt that went on with a job has the later word on it
        than the one that launched it.
        """
        last = {attempt.job_name: attempt for attempt in self.attempts if attempt.job_name}
        return tuple(attempt for attempt in last.values() if attempt.entry and not attempt.entry.has_ended)

    def output(self, name: str = RETURN_VALUE) -> Any:
        """Return an output: a small JSON value itself, a reference for all else.

        :raises RunNotFoundError: naming the outputs that there are.
        """
        self._check_output(name)
        return self.outputs[name]

    def load(self, name: str = RETURN_VALUE) -> Any:
        """Load the value of an output from the artifact store, after checking its digest.

        :raises RunNotFoundError: naming the outputs that there are.
        :raises ArtifactNotFoundError: if the object is gone.
        :raises IntegrityError: if its bytes are not those that were saved.
        """
        self._check_output(name)
        return load(self.references[name], self.store)

    def _check_output(self, name: str) -> None:
        if name not in self.references:
            has = ", ".join(self.references) or "none"
            raise RunNotFoundError(
                f"step {self.label!r} ({self.state}) has no output {name!r}.{did_you_mean(name, self.references)} "
                f"It has: {has}."
            )


@dataclass(frozen=True)
class Run:
    """A run of a DAG, as far as its steps go: the artifact store knows nothing of ordinary tasks.

    Nor does it know of a step that has not begun, so a run whose steps so far have succeeded is ``succeeded`` although
    Airflow may be about to start the next one.

    :param began_at: when the first document of the run was written.
    :param steps: the last attempt of each task instance, in the order in which their tasks began.
    :param problems: documents of the run that could not be read, each by its URI and why.
    :param namesakes: last attempts of further task instances with names of this run: of a run that was deleted and made
        again under its id, or of another Airflow that uses the same store.
    """

    dag_id: str
    run_id: str
    began_at: datetime
    steps: tuple[StepRun, ...]
    problems: tuple[str, ...] = ()
    namesakes: tuple[StepRun, ...] = ()

    @property
    def state(self) -> str:
        """What the last attempts of the steps add up to.

        ``failed`` when one has failed or was stopped, whether or not Airflow tries again; else ``unknown`` when there
        are problems; else ``running`` when one has not ended, or is unknown; else ``succeeded``.
        """
        states = {step.state for step in self.steps}
        if states & {"failed", "stopped"}:
            return "failed"
        if self.problems:
            return "unknown"
        return "succeeded" if states == {"succeeded"} else "running"

    def step(self, task_id: str, map_index: int | None = None) -> StepRun:
        """Return the last attempt of a step.

        :param map_index: which one of a mapped task; not needed where there is only one.
        :raises RunNotFoundError: naming the steps that there are.
        """
        instances = self.instances(task_id)
        if map_index is None and len(instances) == 1:
            return instances[0]
        indexes = [step.map_index for step in instances]
        if map_index not in indexes:
            asked = "give the index of one" if map_index is None else f"there is none with index {map_index}"
            raise RunNotFoundError(
                f"step {task_id!r} of run {self.run_id!r} has the indexes {_ranges(indexes)}: {asked}."
            )
        return instances[indexes.index(map_index)]

    def instances(self, task_id: str) -> list[StepRun]:
        """Return the last attempts of all instances of a task, by index.

        :raises RunNotFoundError: naming the steps that there are.
        """
        found = [step for step in self.steps if step.task_id == task_id]
        if not found:
            tasks = list(dict.fromkeys(step.task_id for step in self.steps))
            raise RunNotFoundError(
                f"run {self.run_id!r} of {self.dag_id!r} has no step {task_id!r} that has begun."
                f"{did_you_mean(task_id, tasks)} It has: {', '.join(tasks) or 'none'}."
            )
        return found


def _ranges(indexes: Iterable[int]) -> str:
    """Return sorted numbers in short: ``0-2, 5``."""
    ranges: list[list[int]] = []
    for index in indexes:
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
