"""The job spec: the document through which Airflow tells a job what to do."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_stepops.artifacts.materializers.json import is_json
from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.errors import SpecError

T = TypeVar("T")

SCHEMA_VERSION = 2

#: The only variable a job needs: the URI of its spec.
SPEC_VARIABLE = "STEPOPS_SPEC"

#: What every step operator runs in the image.
COMMAND = ("python", "-m", "airflow_stepops.runtime")

#: Unix time of the year 10,000.
_END_OF_TIME = 253_402_300_800

_TAG = "$artifact"
_TUPLE = "$tuple"
_ESCAPE = "$value"


@dataclass(frozen=True)
class Attempt:
    """One try of one task instance.

    The names alone do not say which: a run may be deleted and made again under its id, and two Airflows may run the
    same DAG on one artifact store.

    :param map_index: index of a mapped task, -1 when it is not mapped.
    :param try_number: counts from 1.
    :param instance: identity of the task instance: the same for all its tries, and for no other task instance, whatever
        its names.
    :param ti_id: Airflow's id of the task instance for this try, which no other try has.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    instance: str
    ti_id: str


@dataclass(frozen=True)
class StepSource:
    """The function to call.

    :param file: path of the module, relative to the root of the code layer, with ``/``.
    :param module: its dotted name in the image; pickles refer to it by this name.
    :param qualname: qualified name of the function in the module.
    :param digest: sha256 of the function's source text.
    """

    file: str
    module: str
    qualname: str
    digest: str


@dataclass(frozen=True)
class JobSpec:
    """All that a job needs to run one attempt of one step.

    :param root: URI of the artifact store; nothing outside of it is read or written.
    :param directory: URI of the attempt's folder (``…/attempt-<n>``).
    :param args: positional arguments, encoded by :func:`encode_value`.
    :param kwargs: keyword arguments, encoded likewise.
    :param outputs: declared output names, or ``None`` for one value called ``return_value``.
    :param checkpoints: URI of the folder that outlives attempts.
    :param environment: variables to set before the user's module is imported. No secrets.
    :param secrets: variable name → secret reference (``env:NAME``, ``file:PATH`` or a cloud's).
    :param timeout: seconds the step may run, or ``None``.
    """

    attempt: Attempt
    step: StepSource
    root: str
    directory: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    outputs: list[str] | None = None
    checkpoints: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    timeout: int | None = None

    @property
    def uri(self) -> str:
        """URI of the spec itself."""
        return f"{self.directory}/spec.json"

    @property
    def result_uri(self) -> str:
        """URI of the result that the job must leave."""
        return f"{self.directory}/result.json"

    def to_json(self) -> bytes:
        """Return the document: stable bytes for equal specs."""
        document = {"version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return json.dumps(document, sort_keys=True, allow_nan=True).encode()

    def digest(self) -> str:
        """Return the sha256 of what the step is called with: equal for two tries with the same function and inputs."""
        document = dataclasses.asdict(self)
        called = {name: document[name] for name in ("step", "outputs", "environment", "secrets")}
        called["args"] = [_without_places(value) for value in self.args]
        called["kwargs"] = {name: _without_places(value) for name, value in self.kwargs.items()}
        return hashlib.sha256(json.dumps(called, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_json(cls, data: bytes) -> JobSpec:
        """Read a document strictly.

        :raises SpecError: naming the field, when it is missing, unknown or of the wrong type.
        """
        document = read_document(data, "job spec")
        attempt = build(Attempt, document.pop("attempt", None), "job spec: attempt")
        step = build(StepSource, document.pop("step", None), "job spec: step")
        return build(cls, {**document, "attempt": attempt, "step": step}, "job spec")


def spec_variables(uri: str, longest: int) -> dict[str, str]:
    """Return the variables that tell a job the URI of its spec: pieces of it where a service has short variables.

    :param longest: characters that the value of a variable may have.
    """
    pieces = [uri[start : start + longest] for start in range(0, len(uri), longest)]
    return {_piece_name(number): piece for number, piece in enumerate(pieces)}


def spec_uri(variables: Mapping[str, str]) -> str:
    """Undo :func:`spec_variables`; ``""`` when there are none."""
    return "".join(itertools.takewhile(bool, (variables.get(_piece_name(number), "") for number in itertools.count())))


def _piece_name(number: int) -> str:
    return f"{SPEC_VARIABLE}_{number + 1}" if number else SPEC_VARIABLE


def encode_value(value: Any, replace: Callable[[Any], ArtifactReference] | None = None) -> Any:
    """Encode a JSON value that may hold tuples and artifact references, at any depth.

    :param replace: called for a part that is none of these; returns what stands for it.
    :raises TypeError: for such a part when there is no ``replace``; the caller saves it as an artifact first.
    """
    if isinstance(value, ArtifactReference):
        return {_TAG: value.serialize()}
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        encoded = {key: encode_value(item, replace) for key, item in value.items()}
        return {_ESCAPE: encoded} if set(encoded) & {_TAG, _TUPLE, _ESCAPE} else encoded
    if type(value) is tuple:
        return {_TUPLE: [encode_value(item, replace) for item in value]}
    if isinstance(value, list):
        return [encode_value(item, replace) for item in value]
    if is_json(value) or type(value) is float:
        return value
    if replace is not None:
        return encode_value(replace(value))
    raise TypeError(type(value).__qualname__)


def decode_value(value: Any) -> Any:
    """Undo :func:`encode_value`; references come back as :class:`ArtifactReference`.

    :raises SpecError: if a reference is not valid, or the value is nested too deeply.
    """
    try:
        return _decode(value)
    except RecursionError as error:
        raise SpecError("job spec: an argument is nested too deeply to be read.") from error


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TAG} and isinstance(value[_TAG], dict):
            return ArtifactReference.deserialize(value[_TAG])
        if set(value) == {_TUPLE} and isinstance(value[_TUPLE], list):
            return tuple(_decode(item) for item in value[_TUPLE])
        if set(value) == {_ESCAPE} and isinstance(value[_ESCAPE], dict):
            return {key: _decode(item) for key, item in value[_ESCAPE].items()}
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value


def _without_places(value: Any) -> Any:
    """Encoded inputs without the URIs of artifacts: their content is their identity."""
    if isinstance(value, dict):
        if set(value) == {_TAG}:
            return {_TAG: value[_TAG]["blake3"]}
        if set(value) == {_ESCAPE}:
            return {_ESCAPE: {key: _without_places(item) for key, item in value[_ESCAPE].items()}}
        return {key: _without_places(item) for key, item in value.items()}
    return [_without_places(item) for item in value] if isinstance(value, list) else value


def read_document(data: bytes, what: str) -> dict[str, Any]:
    """Parse a versioned JSON document and take its version off.

    :raises SpecError: if it is not JSON, not an object, or of a version this release does not read.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{what}: not JSON ({error}).") from error
    if not isinstance(document, dict):
        raise SpecError(f"{what}: must be an object, not {type(document).__name__}.")
    version = document.pop("version", None)
    if type(version) is not int or version != SCHEMA_VERSION:
        raise SpecError(
            f"{what}: version {reprlib.repr(version)} is not {SCHEMA_VERSION}: another release of airflow-stepops "
            "wrote it. Use the same release in Airflow and in the image."
        )
    return document


def build(cls: type[T], document: Any, what: str) -> T:
    """Make a dataclass of a JSON object, checking names and types of its fields.

    :raises SpecError: naming the field.
    """
    if not isinstance(document, dict):
        raise SpecError(f"{what}: must be an object, not {type(document).__name__}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in document:
        if name not in fields:
            raise SpecError(f"{what}: unknown field {name!r}.")
    for name, spec_field in fields.items():
        if name not in document:
            if spec_field.default is dataclasses.MISSING and spec_field.default_factory is dataclasses.MISSING:
                raise SpecError(f"{what}: field {name!r} is missing.")
            continue
        if not _matches(document[name], str(spec_field.type)):
            raise SpecError(f"{what}: {name}={reprlib.repr(document[name])} must be {spec_field.type}.")
    return cls(**document)


def check_times(times: Mapping[str, float], what: str) -> None:
    """Check that numbers are Unix times that a calendar has.

    :raises SpecError: naming the field.
    """
    for name, value in times.items():
        if not 0 <= value < _END_OF_TIME:
            raise SpecError(f"{what}: {name}={reprlib.repr(value)} must be a Unix time.")


def _matches(value: Any, annotation: str) -> bool:
    """Whether a JSON value is of the annotated type, as far as JSON can tell."""
    if annotation.endswith(" | None"):
        return value is None or _matches(value, annotation.removesuffix(" | None"))
    if annotation == "dict[str, str]":
        return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    if annotation == "list[str]":
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    simple: dict[str, type | tuple[type, ...]] = {
        "str": str, "int": int, "float": (int, float), "bool": bool, "dict": dict, "list": list,
    }  # fmt: skip
    expected = simple.get(annotation.partition("[")[0])
    if expected is None:
        return True
    return isinstance(value, expected) and (annotation == "bool" or not isinstance(value, bool))
