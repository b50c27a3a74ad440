"""The job result: the last thing a job writes, and the only proof that it succeeded."""

from __future__ import annotations

import dataclasses
import json
import reprlib
from dataclasses import dataclass, field
from typing import Any

from airflow_stepops.artifacts.materializers.json import is_json
from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import SpecError
from airflow_stepops.runtime.spec import SCHEMA_VERSION, Attempt, build, check_times, read_document

SUCCEEDED = "succeeded"
FAILED = "failed"
STOPPED = "stopped"

#: Name of the output of a step that declares none.
RETURN_VALUE = "return_value"


@dataclass(frozen=True)
class StepError:
    """An exception of the step, as text: it is never unpickled.

    :param type: qualified name of the exception.
    :param message: its text, cut at 4,000 characters.
    :param traceback: the formatted traceback from the step's own first frame on, cut at 60,000 characters.
    """

    type: str
    message: str
    traceback: str


@dataclass(frozen=True)
class JobResult:
    """What one attempt left.

    :param status: ``succeeded``, ``failed`` (the step raised) or ``stopped`` (SIGTERM, deadline).
    :param outputs: output name → reference.
    :param values: output name → the value itself, for small plain JSON values, which travel in XCom as they are.
    :param metadata: what the step logged with ``log_metadata``.
    :param error: the exception, unless ``succeeded``.
    :param started_at: Unix time of the first line of the step.
    :param ended_at: Unix time of the end of the step, before outputs were saved.
    """

    attempt: Attempt
    status: str
    outputs: dict[str, ArtifactReference] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    error: StepError | None = None
    started_at: float = 0.0
    ended_at: float = 0.0

    def to_json(self) -> bytes:
        """Return the document."""
        return json.dumps({"version": SCHEMA_VERSION, **dataclasses.asdict(self)}, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes, attempt: Attempt) -> JobResult:
        """Read a document strictly, for the attempt it must belong to.

        :raises SpecError: if it is not valid, or of another attempt.
        """
        document = read_document(data, "job result")
        found = build(Attempt, document.pop("attempt", None), "job result: attempt")
        if found != attempt:
            raise SpecError(f"job result: is of {found}, not of {attempt}.")
        if document.get("status") not in (SUCCEEDED, FAILED, STOPPED):
            raise SpecError(f"job result: status={reprlib.repr(document.get('status'))} is unknown.")
        outputs = document.pop("outputs", {})
        if not isinstance(outputs, dict):
            raise SpecError("job result: outputs must be an object of references.")
        error = document.pop("error", None)
        result = build(
            cls,
            {
                **document,
                "attempt": found,
                "outputs": {name: _reference(name, output) for name, output in outputs.items()},
                "error": None if error is None else build(StepError, error, "job result: error"),
            },
            "job result",
        )
        for name in ("values", "metadata"):  # what Airflow itself writes down again
            if not all(map(is_json, getattr(result, name).values())):
                raise SpecError(f"job result: {name} holds what is no plain JSON, or is nested too deeply.")
        check_times({"started_at": result.started_at, "ended_at": result.ended_at}, "job result")
        return result

    def within(self, store: ArtifactStore) -> JobResult:
        """Return the result, all outputs of which are in the store.

        Whoever may write into the attempt's folder may have written it; Airflow may read in more places than they.

        :raises SpecError: naming the output that is not.
        """
        for name, output in self.outputs.items():
            if output.uri not in store:
                raise SpecError(
                    f"job result: outputs[{name!r}]: {reprlib.repr(output.uri)} is no object under the artifact store "
                    f"{store.root!r}."
                )
        return self


def _reference(name: str, document: Any) -> ArtifactReference:
    where = f"job result: outputs[{name!r}]"
    if not isinstance(document, dict):
        raise SpecError(f"{where}: must be a reference, not {type(document).__name__}.")
    try:
        return ArtifactReference.deserialize(document)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error
