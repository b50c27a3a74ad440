"""A 5 GB value from one job to the next: memory beside the value, time, and whether it is the same.

The first job returns bytes that no memory is behind until somebody writes into them, so the peak of its memory is what
saving needs. The second one gets them as its argument and hashes them. ``STEPOPS_BENCH_MB`` makes them fewer.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cloudpickle

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.images.contents import runtime_files
from airflow_stepops.images.plan import RUNTIME
from airflow_stepops.images.plan import folder as place
from airflow_stepops.runtime.call import encode_inputs
from airflow_stepops.runtime.result import JobResult
from airflow_stepops.runtime.spec import SPEC_VARIABLE, Attempt, JobSpec, StepSource

MEGABYTES = int(os.environ.get("STEPOPS_BENCH_MB", "5120"))
#: Of the value's size, beside the value itself.
MOST_BESIDE = 0.1

_STEPS = """\
import hashlib

def make(size):
    return bytes(size)

def digest(value):
    return [len(value), hashlib.sha256(value).hexdigest()]
"""


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    size = MEGABYTES << 20
    with tempfile.TemporaryDirectory(prefix="stepops-bench-") as folder:
        job = _Job(Path(folder))
        made, saving, save_peak = job.run("make", size)
        found, loading, load_peak = job.run("digest", made.outputs["return_value"])
    expected = hashlib.sha256()
    for _ in range(MEGABYTES):
        expected.update(bytes(1 << 20))
    figures = {
        "name": "large",
        "megabytes": MEGABYTES,
        "same": found.values["return_value"] == [size, expected.hexdigest()],
        "save_s": round(saving, 1),
        "load_s": round(loading, 1),
        "save_memory_ratio": round(save_peak / size, 3),
        "load_memory_ratio": round(load_peak / size - 1, 3),
    }
    print(json.dumps(figures))
    sys.exit(not figures["same"] or max(save_peak, load_peak - size) > MOST_BESIDE * size)


class _Job:
    """An artifact store, and jobs that run from folders laid out as in an image."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = ArtifactStore((folder / "store").as_uri())
        (folder / "code").mkdir()
        (folder / "code" / "steps.py").write_text(_STEPS)
        for entry in runtime_files():
            path = folder / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.source if isinstance(entry.source, bytes) else entry.source.read_bytes())

    def run(self, function: str, argument: object) -> tuple[JobResult, float, int]:
        """Run one and return what it left, its seconds, and the peak of its memory in bytes."""
        attempt = Attempt("bench", "run", function, -1, 1, "instance", "ti-1")
        directory = f"{self._store.root}/runs/bench/run/{function}/-1/attempt-1"
        args, _ = encode_inputs((argument,), {}, self._store, directory)
        spec = JobSpec(attempt, StepSource("steps.py", "steps", function, ""), self._store.root, directory, args)
        self._store.put(spec.uri, spec.to_json())
        libraries = Path(cloudpickle.__file__).parents[1]
        path = f"{self._folder / 'code'}:{self._folder / place(RUNTIME)}:{libraries}"
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-S", "-m", "airflow_stepops.runtime"],
            env={"PATH": os.defpath, "PYTHONPATH": path, SPEC_VARIABLE: spec.uri},
            cwd=self._folder,
        )
        _, _, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        return JobResult.from_json(self._store.get(spec.result_uri), attempt), seconds, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
