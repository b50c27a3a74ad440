"""Calling a step: inputs in, function, outputs and result out. The same in a job and in the Airflow worker."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_stepops.artifacts import values
from airflow_stepops.artifacts.materializers.json import is_json
from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import StepopsError
from airflow_stepops.runtime.metadata import collected_metadata
from airflow_stepops.runtime.outputs import split_outputs
from airflow_stepops.runtime.result import FAILED, STOPPED, SUCCEEDED, JobResult, StepError
from airflow_stepops.runtime.spec import JobSpec, decode_value, encode_value

#: JSON values up to this many bytes travel in XCom as themselves.
INLINE_BYTES = 32 * 1024

_MESSAGE_CHARACTERS = 4_000
_TRACEBACK_CHARACTERS = 60_000


class StepStopped(BaseException):
    """The step is asked to end (SIGTERM, or its deadline). Not an ``Exception``, so that steps do not catch it."""


def run_step(function: Callable[..., Any], spec: JobSpec, store: ArtifactStore, *, reraise: bool = False) -> JobResult:
    """Run a step and leave its result in the store, whatever happens in it.

    :param reraise: raise the step's own exception again, after the result was written.
    """
    started_at = time.time()
    with collected_metadata() as metadata:
        try:
            args = [_load(value, store) for value in spec.args]
            kwargs = {name: _load(value, store) for name, value in spec.kwargs.items()}
            returned = function(*args, **kwargs)
            ended_at = time.time()
            outputs, inline = _save_outputs(returned, spec, store)
        except (Exception, StepStopped) as error:
            result = JobResult(
                attempt=spec.attempt,
                status=STOPPED if isinstance(error, StepStopped) else FAILED,
                metadata=metadata,
                error=describe_error(error),
                started_at=started_at,
                ended_at=time.time(),
            )
            store.put(spec.result_uri, result.to_json())
            if reraise:
                raise
            return result
    result = JobResult(spec.attempt, SUCCEEDED, outputs, inline, metadata, None, started_at, ended_at)
    store.put(spec.result_uri, result.to_json())
    return result


def encode_inputs(
    args: Sequence[Any], kwargs: Mapping[str, Any], store: ArtifactStore, directory: str
) -> tuple[list[Any], dict[str, Any]]:
    """Encode a step's arguments for its spec; what is neither JSON nor a reference is saved as an artifact first.

    :param directory: URI of the attempt's folder.
    """
    encoded = [_encode(value, store, f"{directory}/inputs/{position}") for position, value in enumerate(args)]
    return encoded, {name: _encode(value, store, f"{directory}/inputs/{name}") for name, value in kwargs.items()}


def describe_error(error: BaseException) -> StepError:
    """Return an exception as text, its traceback without the frames of this package."""
    lines = traceback.TracebackException.from_exception(error)
    _drop_own_frames(lines)
    text = "".join(lines.format())
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
    own = __file__
    seen: set[int] = set()
    queue: list[traceback.TracebackException | None] = [lines]
    while queue:
        part = queue.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        while len(part.stack) > 1 and part.stack[0].filename == own:
            del part.stack[0]
        queue += [part.__cause__, part.__context__]


def _encode(value: Any, store: ArtifactStore, prefix: str) -> Any:
    try:
        return encode_value(value)
    except TypeError:
        return encode_value(values.save(value, store, prefix))


def _load(encoded: Any, store: ArtifactStore) -> Any:
    return _load_references(decode_value(encoded), store)


def _load_references(value: Any, store: ArtifactStore) -> Any:
    if isinstance(value, ArtifactReference):
        return values.load(value, store)
    if isinstance(value, dict):
        return {key: _load_references(item, store) for key, item in value.items()}
    if isinstance(value, list):
        return [_load_references(item, store) for item in value]
    return value


def _save_outputs(
    returned: Any, spec: JobSpec, store: ArtifactStore
) -> tuple[dict[str, ArtifactReference], dict[str, Any]]:
    outputs: dict[str, ArtifactReference] = {}
    inline: dict[str, Any] = {}
    for name, value in split_outputs(returned, spec.outputs).items():
        if isinstance(value, ArtifactReference):  # an input handed on: the value is in the store already
            outputs[name] = value
            continue
        try:
            outputs[name] = values.save(value, store, f"{spec.directory}/outputs/{name}")
        except StepopsError as error:
            error.add_note(f"This was the output {name!r} of the step.")
            raise
        if is_json(value) and len(json.dumps(value)) <= INLINE_BYTES:
            inline[name] = value
    return outputs, inline
