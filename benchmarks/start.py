"""From the start of a job's process to the first line of the step, over a bare ``python -c pass``.

A job with a ``file://`` spec runs from folders laid out as in an image: this Python without its site-packages, and on
its path the user's code and the runtime alone. The two take turns, and medians are compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.runtime.spec import SPEC_VARIABLE, Attempt, JobSpec, StepSource
from tests.runtime.conftest import copy_runtime

ROUNDS = 25
MOST_MS = 150.0

_STEP = """\
from airflow_stepops.dag import step

@step(step_operator=True)
def train():
    import time
    print(time.clock_gettime(time.CLOCK_MONOTONIC))
"""


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    with tempfile.TemporaryDirectory(prefix="stepops-bench-") as folder:
        environment = _lay_out(Path(folder))
        job = [sys.executable, "-S", "-m", "airflow_stepops.runtime"]
        bare = [sys.executable, "-S", "-c", "pass"]
        started, ended = [], []
        for number in range(ROUNDS + 1):
            spec = _spec(Path(folder), number)
            clock = time.clock_gettime(time.CLOCK_MONOTONIC)
            printed = _run(job, {**environment, SPEC_VARIABLE: spec}, Path(folder))
            started.append((float(printed.split()[0]) - clock) * 1000)
            clock = time.clock_gettime(time.CLOCK_MONOTONIC)
            _run(bare, environment, Path(folder))
            ended.append((time.clock_gettime(time.CLOCK_MONOTONIC) - clock) * 1000)
    # The first round compiles the modules.
    step, python = statistics.median(started[1:]), statistics.median(ended[1:])
    print(f"first line of the step {step:.1f} ms, python -c pass {python:.1f} ms")
    figures = {"name": "start", "ms_over_python": round(step - python, 1)}
    print(json.dumps(figures))
    sys.exit(figures["ms_over_python"] > MOST_MS)


def _lay_out(folder: Path) -> dict[str, str]:
    """Write the code and the runtime as an image has them, and return the job's environment."""
    code, runtime = folder / "code", folder / "runtime"
    copy_runtime(runtime)
    code.mkdir()
    (code / "steps.py").write_text(_STEP)
    return {"PATH": os.defpath, "PYTHONPATH": f"{code}:{runtime}", "LANG": "C.UTF-8"}


def _spec(folder: Path, number: int) -> str:
    source = StepSource("steps.py", "steps", "train", hashlib.sha256(_STEP.encode()).hexdigest())
    store = ArtifactStore((folder / "store").as_uri())
    directory = f"{store.root}/runs/bench/run/train/attempt-{number}"
    spec = JobSpec(
        Attempt("bench", "run", "train", -1, number, "instance", f"ti-{number}"), source, store.root, directory
    )
    store.put(spec.uri, spec.to_json())
    return spec.uri


def _run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout


if __name__ == "__main__":
    main()
