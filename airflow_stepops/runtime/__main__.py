"""What every job runs: ``python -m airflow_stepops.runtime``, with the URI of its spec in ``STEPOPS_SPEC``.

Exit codes: 0 the step succeeded, 1 it raised, 2 it could not be run, 143 it was stopped.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import StepopsError
from airflow_stepops.runtime.call import StepStopped, describe_error, run_step
from airflow_stepops.runtime.load import load_function
from airflow_stepops.runtime.result import FAILED, STOPPED, SUCCEEDED, JobResult
from airflow_stepops.runtime.secrets import resolve
from airflow_stepops.runtime.spec import SPEC_VARIABLE, JobSpec

_EXIT_CODES = {SUCCEEDED: 0, FAILED: 1, STOPPED: 143}
_UNUSABLE = 2
#: Seconds for the step's own clean-up after SIGTERM, and for writing the result.
_GRACE_SECONDS = 25


def main() -> int:
    """Run the job and return its exit code."""
    uri = os.environ.get(SPEC_VARIABLE)
    if not uri:
        return _refuse(
            f"{SPEC_VARIABLE} is not set: this command is run by a step operator, with the URI of a job spec."
        )
    try:
        store = ArtifactStore(_root_of(uri))
        spec = JobSpec.from_json(store.get(uri))
        if spec.uri != uri or spec.root != store.root:
            return _refuse(f"the job spec at {uri} says that it belongs to {spec.uri} in {spec.root}.")
    except StepopsError as error:
        return _refuse(f"cannot read the job spec: {error}")
    signal.signal(signal.SIGTERM, _stop)
    os.environ.update(spec.environment)
    try:
        os.environ.update(resolve(spec.secrets))
        function = load_function(spec.step)
    except (Exception, StepStopped) as error:  # noqa: BLE001 - the result must say it, whatever it is
        return _cannot_begin(error, spec, store)
    result = run_step(function, spec, store)
    if result.error is not None:
        _print(result.error.traceback)
    return _EXIT_CODES[result.status]


def _root_of(uri: str) -> str:
    """Return the artifact store's root, below which specs are in ``runs/``."""
    root, found, _ = uri.rpartition("/runs/")
    return root if found else uri


def _stop(_signal: int, _frame: FrameType | None) -> Any:
    """Raise in the step, once; if it does not end in time, the process does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_GRACE_SECONDS)
    raise StepStopped("the job was asked to stop (SIGTERM)")


def _cannot_begin(error: BaseException, spec: JobSpec, store: ArtifactStore) -> int:
    described = describe_error(error)
    _print(described.traceback)
    store.put(spec.result_uri, JobResult(spec.attempt, FAILED, error=described).to_json())
    return _UNUSABLE


def _refuse(message: str) -> int:
    _print(f"airflow_stepops.runtime: {message}\n")
    return _UNUSABLE


def _print(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    # The working folder is first on the path of ``python -m``; the code layer is there by PYTHONPATH already.
    sys.path[:] = [entry for entry in sys.path if entry not in ("", str(Path.cwd()))] + [str(Path.cwd())]
    sys.exit(main())
