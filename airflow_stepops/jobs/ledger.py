"""The ledger: what is known of an attempt's job, in the artifact store, whatever process dies.

Two documents in the attempt's folder, each created once by a put-if-absent:

``job.json``
    written *before* the create call with the intended name; updated with the service's id and the end.
``claim.json``
    who decides about the job's end: ``cancel`` (somebody asked for it) or ``attempt-<n> <ti_id>`` (a later attempt
    goes on with the job). Whoever creates it first wins, so that a job is never both adopted and stopped. The claims of
    several attempts are a chain: the last of them decides, also when it died before it wrote a ledger of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import reprlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import ArtifactExistsError, ArtifactNotFoundError, EndKind, SpecError
from airflow_stepops.jobs.attempt import attempt_directory, job_name, task_directory
from airflow_stepops.jobs.outcome import Outcome
from airflow_stepops.jobs.protocol import JobState, JobStatus
from airflow_stepops.runtime.spec import SCHEMA_VERSION, Attempt, JobSpec, build, check_times, read_document

CANCEL = "cancel"

_SUCCESSOR = re.compile(r"attempt-(\d+) .*")


@dataclass(frozen=True)
class LedgerEntry:
    """The record of an attempt's job.

    :param attempt: the attempt that this entry is of.
    :param directory: URI of the folder in which the job leaves its result: the attempt's own, or that of the
        earlier attempt whose job was adopted.
    :param job_attempt: the attempt that the job was launched for.
    :param work: :func:`work_digest` of what the job does.
    :param component: the step operator's document (flavor and settings).
    :param job_name: the intended name.
    :param job_id: the service's id; ``""`` until the create call was answered.
    :param state: last known state; ``""`` until the create call was answered.
    :param image: reference of the job's image.
    :param uploaded_blobs: number of blobs that were uploaded for it.
    :param submitted_at: Unix time at which the service has taken the job; 0 until then.
    :param end_kind: value of the :class:`~airflow_stepops.errors.EndKind` of an end without success, else ``""``.
    :param end_reason: why it ended so.
    :param ended_at: Unix time; 0 until the end is known.
    :param last_try: number of the last try that Airflow allows; that a later attempt has a higher one means that a
        person has cleared the task in between.
    :param dag_version: Airflow's id of the DAG's version, by which the Airflow is known that launched the job.
    """

    attempt: Attempt
    directory: str
    job_attempt: Attempt
    work: str
    component: dict[str, Any]
    job_name: str
    job_id: str = ""
    console_url: str = ""
    state: str = ""
    image: str = ""
    uploaded_blobs: int = 0
    uploaded_bytes: int = 0
    submitted_at: float = 0.0
    end_kind: str = ""
    end_reason: str = ""
    ended_at: float = 0.0
    last_try: int = 0
    dag_version: str = ""

    @property
    def image_digest(self) -> str:
        """Digest of the image's manifest, ``""`` when the reference is not pinned."""
        return self.image.partition("@")[2]

    @property
    def claim(self) -> str:
        """The word in the claim of a job with which this attempt goes on."""
        return f"attempt-{self.attempt.try_number} {self.attempt.ti_id}"

    @property
    def has_no_job(self) -> bool:
        """Whether the attempt ended before it had a job: no image, or the service refused the request."""
        return bool(self.end_kind) and not self.job_id

    @property
    def has_ended(self) -> bool:
        """Whether the end of the job is known."""
        return bool(self.state) and JobState(self.state).ended

    def check(self, root: str) -> None:
        """Check that the entry tells of a job of its own task instance: a job may have written it.

        :param root: of the artifact store.
        :raises SpecError: naming the field, when it points to the folder or the job of anything else.
        """
        job = self.job_attempt
        if dataclasses.replace(job, try_number=self.attempt.try_number, ti_id=self.attempt.ti_id) != self.attempt:
            raise SpecError(f"ledger: job_attempt={job} is of another task instance than {self.attempt}.")
        for field, expected in (("directory", attempt_directory(root, job)), ("job_name", job_name(root, job))):
            if getattr(self, field) != expected:
                raise SpecError(f"ledger: {field}={reprlib.repr(getattr(self, field))} must be {expected!r}.")

    def ended(self, status: JobStatus, outcome: Outcome) -> LedgerEntry:
        """Return the entry with the end of the job.

        :param status: the last one.
        :param outcome: what :func:`~airflow_stepops.jobs.outcome.judge` says of it.
        """
        return dataclasses.replace(
            self,
            state=status.state.value,
            end_kind=outcome.kind.value if outcome.kind else "",
            end_reason=outcome.reason,
            ended_at=status.ended_at or time.time(),
        )

    def failed(self, kind: EndKind, reason: str) -> LedgerEntry:
        """Return the entry of an attempt that ended before it had a job."""
        return dataclasses.replace(
            self, state=JobState.FAILED.value, end_kind=kind.value, end_reason=reason, ended_at=time.time()
        )

    def to_json(self) -> bytes:
        """Return the document."""
        return json.dumps({"version": SCHEMA_VERSION, **dataclasses.asdict(self)}, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> LedgerEntry:
        """Read the bytes of a document strictly.

        :raises SpecError: naming the field.
        """
        return cls.from_document(read_document(data, "ledger"))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LedgerEntry:
        """Rebuild an entry from its JSON fields.

        :raises SpecError: naming the field.
        """
        attempts = {
            field: build(Attempt, document.get(field), f"ledger: {field}") for field in ("attempt", "job_attempt")
        }
        entry = build(cls, {**document, **attempts}, "ledger")
        if entry.state not in ("", *(state.value for state in JobState)):
            raise SpecError(f"ledger: state={reprlib.repr(entry.state)} is unknown.")
        if entry.end_kind not in ("", *(kind.value for kind in EndKind)):
            raise SpecError(f"ledger: end_kind={reprlib.repr(entry.end_kind)} is unknown.")
        check_times({"submitted_at": entry.submitted_at, "ended_at": entry.ended_at}, "ledger")
        return entry


class Ledger:
    """The ledger of one attempt."""

    def __init__(self, store: ArtifactStore, attempt: Attempt) -> None:
        self._store = store
        self._attempt = attempt
        self._directory = attempt_directory(store.root, attempt)

    def open(self, entry: LedgerEntry) -> LedgerEntry:
        """Write the entry, or return what is there: what an earlier run of this very attempt wrote."""
        try:
            self._store.put_if_absent(self._entry_uri, entry.to_json())
        except ArtifactExistsError:
            return self.read() or self.open(entry)
        return entry

    def record(self, entry: LedgerEntry) -> None:
        """Replace the entry with a later one."""
        self._store.put(self._entry_uri, entry.to_json())

    def read(self) -> LedgerEntry | None:
        """Return the entry, or ``None`` when the attempt launched nothing.

        :raises SpecError: naming the URI, when the document is not valid, of another attempt, or tells of the job of
            another task instance.
        """
        entry = _read(self._store, self._directory)
        if entry is not None and entry.attempt != self._attempt:
            raise SpecError(f"{self._entry_uri}: ledger: is of {entry.attempt}, not of {self._attempt}.")
        return entry

    def forget(self) -> None:
        """Remove the entry, which has no job."""
        self._store.delete(self._entry_uri)

    def claim(self, owner: str) -> bool:
        """Claim the right to decide about the end of the job that this attempt waits for.

        :param owner: :data:`CANCEL`, or :attr:`LedgerEntry.claim` of an attempt that goes on with the job.
        :returns: whether it is ours: nobody had claimed it, or the same owner had.
        """
        return self._claimed_by(self._directory, owner) == owner

    def claim_last(self, owner: str, before: float = math.inf) -> str:
        """Claim the job of this attempt from the last of those who went on with it, following their claims.

        :param owner: see :meth:`claim`.
        :param before: number of the attempt that asks, which follows no later attempt.
        :returns: whose it is now: ``owner``, or who had claimed it.
        """
        number = self._attempt.try_number
        while True:
            claimant = self._claimed_by(self._directory_of(number), owner)
            successor = _SUCCESSOR.fullmatch(claimant)
            if claimant == owner or successor is None or not number < int(successor[1]) < before:
                return claimant
            number = int(successor[1])

    def claimant(self) -> str:
        """Return who has claimed the right to decide about the job's end, ``""`` when nobody has."""
        try:
            return self._store.get(f"{self._directory}/claim.json").decode(errors="replace")
        except ArtifactNotFoundError:
            return ""

    def earlier(self) -> Iterator[LedgerEntry]:
        """Yield the entries of the earlier attempts of the same task instance, the latest first.

        An attempt without one may be about to write it, if its worker only seems to be dead. It is told by a claim to
        give up what it launches. That comes last, after whoever asks has claimed what there is: the attempt may have
        gone on with the job of one before it, and then it is that job which the claim would end.

        :raises SpecError: see :meth:`read`.
        """
        silent = []
        there = set(self._store.list(task_directory(self._store.root, self._attempt)))
        for directory in self._earlier_directories():
            entry = _read(self._store, directory) if f"{directory}/job.json" in there else None
            if entry is not None:
                yield entry
            else:
                silent.append(directory)
        for directory in silent:
            if f"{directory}/claim.json" not in there:
                self._claimed_by(directory, CANCEL)
            entry = _read(self._store, directory)
            if entry is not None:
                yield entry

    def earlier_ends(self, kind: EndKind) -> int:
        """Return how many earlier attempts of the same task instance ended in this way."""
        entries = (_read(self._store, directory) for directory in self._earlier_directories())
        return sum(entry is not None and entry.end_kind == kind.value for entry in entries)

    def _earlier_directories(self) -> list[str]:
        return [self._directory_of(number) for number in range(self._attempt.try_number - 1, 0, -1)]

    def _directory_of(self, try_number: int) -> str:
        return attempt_directory(self._store.root, dataclasses.replace(self._attempt, try_number=try_number))

    def _claimed_by(self, directory: str, owner: str) -> str:
        """Claim the job of an attempt's folder, and return whose it is."""
        uri = f"{directory}/claim.json"
        try:
            self._store.put_if_absent(uri, owner.encode())
        except ArtifactExistsError:
            return self._store.get(uri).decode(errors="replace")
        return owner

    @property
    def _entry_uri(self) -> str:
        return f"{self._directory}/job.json"


def work_digest(spec: JobSpec, recipe: str, resources: Mapping[str, Any]) -> str:
    """Return the sha256 of what makes two attempts the same work, so that one may go on with the job of the other.

    It is the step's function and inputs, the requirements and base of its image, and the resources that it asks for.
    It is not the other code of the image, which changes with each deployment of any DAG, nor timeouts and settings of
    the step operator.

    :param recipe: :attr:`~airflow_stepops.images.builder.BuiltImage.recipe`.
    :param resources: the JSON form of :class:`~airflow_stepops.options.Resources`.
    """
    parts = json.dumps([spec.digest(), recipe, resources], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


def _read(store: ArtifactStore, directory: str) -> LedgerEntry | None:
    uri = f"{directory}/job.json"
    try:
        entry = LedgerEntry.from_json(store.get(uri))
        if attempt_directory(store.root, entry.attempt) != directory:
            raise SpecError(f"ledger: is of {entry.attempt}.")
        entry.check(store.root)
    except ArtifactNotFoundError:
        return None
    except SpecError as error:
        raise SpecError(f"{uri}: {error}") from error
    return entry
