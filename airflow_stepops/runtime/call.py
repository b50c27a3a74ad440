"""Calling a step: inputs in, function, outputs and result out. The same in a job and in the Airflow worker."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_stepops.artifacts import values
from airflow_stepops.artifacts.materializers.json import JsonMaterializer
from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import ArtifactError, StepopsError
from airflow_stepops.runtime.checkpoints import kept_checkpoints
from airflow_stepops.runtime.cluster import cluster
from airflow_stepops.runtime.metadata import collected_metadata
from airflow_stepops.runtime.outputs import split_outputs
from airflow_stepops.runtime.result import FAILED, STOPPED, SUCCEEDED, JobResult, StepError
from airflow_stepops.runtime.spec import JobSpec, decode_value, encode_value
from airflow_stepops.runtime.stopping import StepStopped, settle

#: JSON values up to this many bytes travel in XCom as themselves.
INLINE_BYTES = 32 * 1024

_MESSAGE_CHARACTERS = 4_000
_TRACEBACK_CHARACTERS = 60_000
_OUR_FRAMES = str(Path(__file__).parents[1])
_IMPORT_FRAMES = "<frozen importlib"


def run_step(function: Callable[..., Any], spec: JobSpec, store: ArtifactStore, *, reraise: bool = False) -> JobResult:
    """Run a step and leave its result in the store, whatever happens in it.

    :param reraise: raise what the step raised again, after the result was written.
    :raises ArtifactError: if the result cannot be written.
    """
    started_at = time.time()
    with collected_metadata() as metadata, kept_checkpoints(spec, store) as checkpoints:
        try:
            args = [_load(value, store) for value in spec.args]
            kwargs = {name: _load(value, store) for name, value in spec.kwargs.items()}
            started_at = time.time()
            returned = function(*args, **kwargs)
            ended_at = time.time()
            outputs, inline = _save_outputs(returned, spec, store) if cluster().rank == 0 else ({}, {})
            settle()
        except BaseException as error:  # a step may also end with sys.exit()
            settle()
            checkpoints.save()
            result = failure(error, spec, metadata, started_at)
            leave_result(result, spec, store)
            if reraise:
                raise
            return result
        result = JobResult(spec.attempt, SUCCEEDED, outputs, inline, metadata, None, started_at, ended_at)
        leave_result(result, spec, store)
        checkpoints.drop()
    return result


def failure(error: BaseException, spec: JobSpec, metadata: dict[str, Any], started_at: float) -> JobResult:
    """Return the result of a step that did not return."""
    return JobResult(
        attempt=spec.attempt,
        status=STOPPED if isinstance(error, StepStopped) else FAILED,
        metadata=metadata,
        error=describe_error(error),
        started_at=started_at,
        ended_at=time.time(),
    )


def leave_result(result: JobResult, spec: JobSpec, store: ArtifactStore) -> None:
    """Write the result, even if the end of the job is asked for in the middle. Of several machines the first does."""
    settle()
    if cluster().rank == 0:
        store.put(spec.result_uri, result.to_json())


def encode_inputs(
    args: Sequence[Any], kwargs: Mapping[str, Any], store: ArtifactStore, directory: str
) -> tuple[list[Any], dict[str, Any]]:
    """Encode a step's arguments for its spec; what is neither JSON nor a reference is saved as an artifact first.

    :param directory: URI of the attempt's folder.
    """
    folder = f"{directory}/inputs"
    positional = [_encode(value, store, f"{folder}/{position}") for position, value in enumerate(args)]
    named = {
        name: _encode(value, store, f"{folder}/{name if name.isidentifier() else f'argument-{position}'}")
        for position, (name, value) in enumerate(kwargs.items())
    }
    return positional, named


def describe_error(error: BaseException) -> StepError:
    """Return an exception as text, its traceback without the frames of this package."""
    try:
        lines = traceback.TracebackException.from_exception(error)
        _drop_own_frames(lines)
        text = "".join(lines.format())
    except Exception as broken:  # noqa: BLE001 - groups without end, an odd __notes__: the step's own error matters
        text = f"(the traceback cannot be made: {type(broken).__name__})\n"
    if len(text) > _TRACEBACK_CHARACTERS:
        half = _TRACEBACK_CHARACTERS // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return StepError(name, _text(error)[:_MESSAGE_CHARACTERS], text)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - an exception whose text cannot be made must not hide itself
        return f"(its text cannot be made: {type(broken).__name__})"


def _drop_own_frames(lines: traceback.TracebackException) -> None:
    """Let tracebacks begin with the user's first frame, also those of causes."""
    seen: set[int] = set()
    parts: list[traceback.TracebackException | None] = [lines]
    while parts:
        part = parts.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        while len(part.stack) > 1 and part.stack[0].filename.startswith((_OUR_FRAMES, _IMPORT_FRAMES)):
            del part.stack[0]
        parts += [part.__cause__, part.__context__, *(part.exceptions or ())]


def _encode(value: Any, store: ArtifactStore, prefix: str) -> Any:
    try:
        return encode_value(value)
    except (TypeError, RecursionError) as error:
        if isinstance(error, RecursionError) or not _holds_references(value):
            return encode_value(values.save(value, store, prefix))
    # A reference inside a pickle would reach the step as itself, so the parts beside it are saved one by one.
    numbers = itertools.count()
    return encode_value(value, lambda part: values.save(part, store, f"{prefix}-{next(numbers)}"))


def _holds_references(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) for key in value) and any(map(_holds_references, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_references, value))
    return isinstance(value, ArtifactReference)


def _load(encoded: Any, store: ArtifactStore) -> Any:
    return _load_references(decode_value(encoded), store)


def _load_references(value: Any, store: ArtifactStore) -> Any:
    if isinstance(value, ArtifactReference):
        return values.load(value, store)
    if isinstance(value, dict):
        return {key: _load_references(item, store) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_load_references(item, store) for item in value)
    return value


def _save_outputs(
    returned: Any, spec: JobSpec, store: ArtifactStore
) -> tuple[dict[str, ArtifactReference], dict[str, Any]]:
    outputs: dict[str, ArtifactReference] = {}
    inline: dict[str, Any] = {}
    for name, value in split_outputs(returned, spec.outputs).items():
        if isinstance(value, ArtifactReference):  # an input handed on: the value is in the store already
            if value.uri not in store:
                raise ArtifactError(
                    f"the output {name!r} refers to {value.uri}, which is not in {store.root}: load it."
                )
            outputs[name] = value
            continue
        try:
            outputs[name] = values.save(value, store, f"{spec.directory}/outputs/{name}")
        except StepopsError as error:
            error.add_note(f"This was the output {name!r} of the step.")
            raise
        if outputs[name].materializer == JsonMaterializer.name and outputs[name].size <= INLINE_BYTES:
            inline[name] = value
    return outputs, inline
