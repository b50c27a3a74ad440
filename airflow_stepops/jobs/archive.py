"""Reads runs back from the artifact store: one list, then the small documents, many at a time."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import ArtifactError, ArtifactNotFoundError, RunNotFoundError, SpecError, did_you_mean
from airflow_stepops.jobs.attempt import attempt_directory, segment
from airflow_stepops.jobs.ledger import LedgerEntry
from airflow_stepops.jobs.runs import WORKER, Run, StepRun
from airflow_stepops.runtime.result import STOPPED, SUCCEEDED, JobResult, StepError
from airflow_stepops.runtime.spec import Attempt, JobSpec, decode_value

T = TypeVar("T")

#: Documents that are fetched at the same time: each costs S3 some 30 ms, whatever its size.
_FETCHES = 16

#: Below ``runs/``.
_DOCUMENT = re.compile(
    r"(?P<run>[^/]+/[^/]+)/(?P<attempt>[^/]+/-?\d+/[^/]+/attempt-\d+)/(?P<name>spec\.json|job\.json|result\.json)"
)

#: A value of an attempt.
_OBJECT = re.compile(r"(?P<directory>.+/attempt-\d+)/(outputs|inputs)/.+")


@dataclass
class _Folder:
    """The documents of a run, as the store lists them.

    :param uri: of the folder.
    :param attempts: URI of an attempt's folder → name of the document → Unix time at which it was written.
    """

    uri: str
    attempts: dict[str, dict[str, float]]

    @property
    def began_at(self) -> float:
        return min(time for written in self.attempts.values() for time in written.values())

    @property
    def written_at(self) -> float:
        return max(time for written in self.attempts.values() for time in written.values())

    @property
    def needed(self) -> list[str]:
        """URIs to read. The ledger of a job names its attempt, so its spec is not needed."""
        return [
            f"{attempt}/{name}"
            for attempt, names in self.attempts.items()
            for name in names
            if not (name == "spec.json" and "job.json" in names)
        ]


class RunArchive:
    """The runs whose documents are in an artifact store.

    :param store: what :meth:`~airflow_stepops.stacks.components.ArtifactStoreComponent.open` returns.
    """

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def runs(self, dag_id: str | None = None, limit: int | None = None, written_since: float = 0.0) -> list[Run]:
        """Return runs, those that began last first. What cannot be read of one is told with it.

        :param dag_id: of one DAG alone.
        :param limit: how many at most.
        :param written_since: Unix time; only those in which something was written at or after it.
        :raises ArtifactError: if the store cannot be listed.
        """
        folders = self._folders(*() if dag_id is None else (dag_id,))
        return self._read([folder for folder in folders if folder.written_at >= written_since][:limit])

    def unfinished(self, result_before: float) -> list[Run]:
        """Return the runs with attempts whose jobs may still run, as far as these attempts go, however old they are.

        :param result_before: Unix time; a job that left a result before it has ended since.
        :raises ArtifactError: if the store cannot be listed.
        """
        folders = []
        for folder in self._folders():
            left = {
                attempt: written
                for attempt, written in folder.attempts.items()
                if "job.json" in written and written.get("result.json", result_before) >= result_before
            }
            if left:
                folders.append(_Folder(folder.uri, left))
        return self._read(folders)

    def run(self, dag_id: str, run_id: str) -> Run:
        """Return a run.

        :raises RunNotFoundError: naming the nearest runs that there are.
        :raises ArtifactError: if the store cannot be listed.
        """
        found = self._read(self._folders(dag_id, run_id))
        if not found:
            raise self._not_found(dag_id, run_id)
        return found[0]

    def reference(self, uri: str) -> ArtifactReference:
        """Return the reference of an output or input of an attempt, from the documents beside it.

        :param uri: of the object.
        :raises RunNotFoundError: if no document refers to it.
        :raises SpecError: naming the URI of a document that is not valid.
        :raises ArtifactError: if the store cannot be read.
        """
        found = _OBJECT.match(uri)
        if found is None:
            raise RunNotFoundError(
                f"{uri}: is no output or input of a step: those are at …/attempt-<n>/outputs/… and …/inputs/…."
            )
        directory = found["directory"]
        places = [f"{directory}/spec.json", f"{directory}/result.json"]
        documents = _Documents({place: self._fetch(place) for place in places})
        read = documents.read(places[0], _inputs)
        result = documents.read(places[1], lambda data: JobResult.from_json(data, read[0])) if read else None
        if documents.problems:
            raise SpecError(documents.problems[0])
        references: list[ArtifactReference] = [*(result.outputs.values() if result else ()), *(read[1] if read else ())]
        for reference in references:
            if reference.uri == uri:
                return reference
        names = [reference.uri for reference in references]
        raise RunNotFoundError(f"{uri}: no step has left or been given this.{did_you_mean(uri, names)}")

    def _folders(self, *names: str) -> list[_Folder]:
        """Return the runs below ``runs/[<dag>/[<run>/]]``, those that began last first."""
        root = f"{self._store.root}/runs"
        found: dict[str, _Folder] = {}
        for uri, time in self._store.written("/".join((root, *map(segment, names)))).items():
            match = _DOCUMENT.fullmatch(uri, len(root) + 1)
            if match is not None:
                folder = found.setdefault(match["run"], _Folder(f"{root}/{match['run']}", {}))
                folder.attempts.setdefault(f"{folder.uri}/{match['attempt']}", {})[match["name"]] = time
        return sorted(found.values(), key=lambda folder: (folder.began_at, folder.uri), reverse=True)

    def _read(self, folders: Sequence[_Folder]) -> list[Run]:
        uris = [uri for folder in folders for uri in folder.needed]
        with ThreadPoolExecutor(_FETCHES, "stepops-archive") as threads:
            documents = dict(zip(uris, threads.map(self._fetch, uris), strict=True))
        return [self._run(folder, _Documents(documents)) for folder in folders]

    def _fetch(self, uri: str) -> bytes | ArtifactError:
        try:
            return self._store.get(uri)
        except ArtifactError as error:
            return error

    def _run(self, folder: _Folder, documents: _Documents) -> Run:
        instances: dict[tuple[str, int, str], list[StepRun]] = defaultdict(list)
        for directory, written in folder.attempts.items():
            step = self._step(directory, min(written.values()), documents)
            if step is not None:
                instances[step.task_id, step.map_index, step.attempt.instance].append(step)
        began: dict[str, datetime] = {}
        last: dict[tuple[str, int], StepRun] = {}
        namesakes = []
        for attempts in sorted(instances.values(), key=lambda attempts: min(step.began_at for step in attempts)):
            attempts.sort(key=lambda step: step.try_number)
            step = dataclasses.replace(attempts[-1], earlier=tuple(attempts[:-1]))
            before = last.pop((step.task_id, step.map_index), None)
            namesakes += [before] if before is not None else []
            last[step.task_id, step.map_index] = step
            began[step.task_id] = min(attempts[0].began_at, began.get(step.task_id, attempts[0].began_at))
        steps = sorted(last.values(), key=lambda step: (began[step.task_id], step.task_id, step.map_index))
        dag_id, run_id = (steps[0].dag_id, steps[0].run_id) if steps else folder.uri.split("/")[-2:]
        problems = tuple(documents.problems)
        return Run(dag_id, run_id, _time(folder.began_at), tuple(steps), problems, tuple(namesakes))

    def _step(self, directory: str, written_at: float, documents: _Documents) -> StepRun | None:
        entry = documents.read(f"{directory}/job.json", LedgerEntry.from_json)
        spec = None if entry else documents.read(f"{directory}/spec.json", JobSpec.from_json)
        told = entry or spec
        if told is None:
            return None
        attempt, job_attempt = told.attempt, entry.job_attempt if entry else told.attempt
        if attempt_directory(self._store.root, attempt) != directory:
            documents.problem(f"{directory}: is of {attempt}.")
            return None
        uri = f"{attempt_directory(self._store.root, job_attempt)}/result.json"
        result = documents.read(uri, lambda data: JobResult.from_json(data, job_attempt))
        if entry is not None and entry.end_kind and result is not None and result.status == SUCCEEDED:
            result = None  # Airflow has not taken it: it came too late, or points out of the store
        return _step_run(self._store, attempt, entry, result, written_at)

    def _not_found(self, dag_id: str, run_id: str) -> RunNotFoundError:
        store = f"the artifact store {self._store.root}"
        folders = self._folders(dag_id)
        if folders:
            names = ", ".join(repr(run.run_id) for run in self._nearest(folders, run_id, 1))
            return RunNotFoundError(f"{store} has no run {run_id!r} of the DAG {dag_id!r}. The nearest: {names}.")
        near = self._nearest(self._folders(), dag_id, 0)
        names = f" The nearest: {', '.join(repr(run.dag_id) for run in near)}." if near else " It has no runs."
        return RunNotFoundError(f"{store} has no runs of a DAG {dag_id!r}.{names}")

    def _nearest(self, folders: Sequence[_Folder], name: str, part: int) -> list[Run]:
        """Return runs whose names are near to one, or the latest.

        :param part: 0 to compare names of DAGs, 1 to compare names of runs.
        """
        latest = {folder.uri.split("/")[-2:][part]: folder for folder in reversed(folders)}
        near = difflib.get_close_matches(segment(name), latest, n=3, cutoff=0.5)
        return self._read([latest[found] for found in near] or folders[:1])


class _Documents:
    """Documents that were fetched, and what is wrong with them.

    :param fetched: URI → its bytes, or why there are none.
    """

    def __init__(self, fetched: Mapping[str, bytes | ArtifactError]) -> None:
        self._fetched = fetched
        self.problems: list[str] = []

    def read(self, uri: str, parse: Callable[[bytes], T]) -> T | None:
        """Return a document; ``None`` when there is none, or there is something wrong with it."""
        data = self._fetched.get(uri)
        if data is None or isinstance(data, ArtifactNotFoundError):  # deleted since the list
            return None
        if isinstance(data, ArtifactError):
            self.problem(str(data))
            return None
        try:
            return parse(data)
        except SpecError as error:
            self.problem(f"{uri}: {error}")
            return None

    def problem(self, text: str) -> None:
        """Note a problem, once: an adopted job's result is read for two attempts."""
        if text not in self.problems:
            self.problems.append(text)


def _inputs(spec: bytes) -> tuple[Attempt, list[ArtifactReference]]:
    """Return whose spec it is, and the references in its arguments."""
    document = JobSpec.from_json(spec)
    return document.attempt, list(_references(decode_value([document.args, document.kwargs])))


def _references(value: Any) -> Iterator[ArtifactReference]:
    """Yield the references in a step's argument, at any depth."""
    if isinstance(value, ArtifactReference):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)


def _step_run(
    store: ArtifactStore, attempt: Attempt, entry: LedgerEntry | None, result: JobResult | None, written_at: float
) -> StepRun:
    values = result.values if result else {}
    references = result.outputs if result else {}
    submitted_at = entry.submitted_at if entry else 0.0
    started_at = result.started_at if result else 0.0
    ended_at = result.ended_at if result else entry.ended_at if entry else 0.0
    step = StepRun(
        attempt=attempt,
        state=_state(entry, result),
        began_at=_time(submitted_at or started_at or written_at),
        where=WORKER,
        started_at=_time(started_at) if started_at else None,
        ended_at=_time(ended_at) if ended_at else None,
        metadata=result.metadata if result else {},
        error=_error(entry, result),
        outputs={name: values.get(name, reference) for name, reference in references.items()},
        references=references,
        store=store,
    )
    if entry is None:
        return step
    return dataclasses.replace(
        step,
        where=entry.component.get("flavor", ""),
        step_operator=entry.component.get("name", ""),
        job_name="" if entry.has_no_job else entry.job_name,
        job_id=entry.job_id,
        console_url=entry.console_url,
        image=entry.image,
        image_digest=entry.image_digest,
        uploaded_blobs=entry.uploaded_blobs,
        uploaded_bytes=entry.uploaded_bytes,
        submitted_at=_time(submitted_at) if submitted_at else None,
        entry=entry,
    )


def _state(entry: LedgerEntry | None, result: JobResult | None) -> str:
    if result is not None:
        return result.status
    if entry is None:
        return "unknown"
    if entry.state == "succeeded":  # a valid result is the only proof of success
        return "failed"
    return entry.state or "pending"


def _error(entry: LedgerEntry | None, result: JobResult | None) -> StepError | None:
    error = result.error if result else None
    if entry is None or not entry.end_kind or (error is not None and result is not None and result.status != STOPPED):
        return error
    return StepError(entry.end_kind, entry.end_reason, error.traceback if error else "")


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
