"""A job: it reads its spec, calls the step and leaves a result.

Exit codes: 0 the step succeeded, 1 it raised, 2 it could not be run, 143 it was stopped.
"""

from __future__ import annotations

import os
import sys
import time
from io import TextIOWrapper

from airflow_stepops.artifacts.store import ArtifactStore, register_opener
from airflow_stepops.errors import ArtifactError, SpecError, StepopsError
from airflow_stepops.runtime.call import failure, leave_result, run_step
from airflow_stepops.runtime.cluster import cluster
from airflow_stepops.runtime.load import load_function
from airflow_stepops.runtime.result import FAILED, STOPPED, SUCCEEDED, JobResult, StepError
from airflow_stepops.runtime.secrets import resolve
from airflow_stepops.runtime.spec import SPEC_VARIABLE, JobSpec, spec_uri
from airflow_stepops.runtime.stopping import StepStopped, Stopping

_EXIT_CODES = {SUCCEEDED: 0, FAILED: 1, STOPPED: 143}
_UNUSABLE = 2


def main() -> int:
    """Run the job and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    uri = spec_uri(os.environ)
    if not uri:
        return _refuse(
            f"{SPEC_VARIABLE} is not set: this command is run by a step operator, with the URI of a job spec."
        )
    try:
        spec, store = _read_spec(uri)
    except StepopsError as error:
        return _refuse(f"cannot read the job spec: {error}")
    try:
        with Stopping(lambda where: _give_up(where, spec, store)):
            return _run(spec, store)
    except ArtifactError as error:
        return _refuse(f"cannot write the result of the step: {error}")


def _read_spec(uri: str) -> tuple[JobSpec, ArtifactStore]:
    """Read the spec with no more than its own folder at hand, then open the store that it belongs to."""
    spec = JobSpec.from_json(ArtifactStore(uri.rpartition("/")[0]).get(uri))
    if spec.uri != uri or not uri.startswith(f"{spec.root}/"):
        raise SpecError(f"the document at {uri} says that it is {spec.uri}, in the artifact store {spec.root}.")
    store = ArtifactStore(spec.root)
    register_opener(lambda found: store if found.startswith(f"{spec.root}/") else None)
    return spec, store


def _run(spec: JobSpec, store: ArtifactStore) -> int:
    begun_at = time.time()
    machines = cluster()
    if machines.size > 1:
        os.environ.update(machines.variables())
    os.environ.update(spec.environment)
    try:
        os.environ.update(resolve(spec.secrets))
        function = load_function(spec.step)
    except BaseException as error:  # noqa: BLE001 - the result must say it, whatever it is
        result = failure(error, spec, {}, begun_at)
        leave_result(result, spec, store)
        exit_code = _UNUSABLE if result.status == FAILED else _EXIT_CODES[result.status]
    else:
        try:
            result = run_step(function, spec, store)
        except StepStopped as error:  # just before or after the step
            result = failure(error, spec, {}, begun_at)
            leave_result(result, spec, store)
        exit_code = _EXIT_CODES[result.status]
    if result.error is not None:
        _print(result.error.traceback)
    return exit_code


def _give_up(where: str, spec: JobSpec, store: ArtifactStore) -> None:
    name = f"{StepStopped.__module__}.{StepStopped.__qualname__}"
    text = "the job was asked to stop (SIGTERM), and the step did not end in time"
    _print(f"airflow_stepops.runtime: {text}. It was here:\n{where}")
    leave_result(JobResult(spec.attempt, STOPPED, error=StepError(name, text, where)), spec, store)


def _refuse(message: str) -> int:
    _print(f"airflow_stepops.runtime: {message}\n")
    return _UNUSABLE


def _print(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()
