"""Parsing a pipeline of 100 steps against the same DAG in plain TaskFlow.

Both files go through what the DAG processor does with a file: a forked process, which has Airflow in memory, fills a
DagBag from it and serializes the DAG. The two take turns, and medians are compared. The names that the files import are
loaded before the fork; what importing ours costs on top of TaskFlow's is a figure of its own, and
``ratio_with_import`` has it in the ratio.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS = 100
ROUNDS = 41
IMPORT_ROUNDS = 9
MOST_RATIO = 1.10
MOST_IMPORT_MS = 30.0
#: What no DAG file may load.
HEAVY = ("boto3", "botocore", "google.cloud", "azure", "docker", "obstore", "pandas", "numpy")

_STACK_FILE = """\
version: 1
active: here
step_operators:
  small: {flavor: local}
  large: {flavor: local}
stacks:
  here:
    artifact_store: local
    container_registry: local
    step_operators: [small, large]
"""

_PIPELINE = """\
from airflow_stepops.dag import Image, Resources, pipeline, step

IMAGE = Image(requirements=["scikit-learn==1.9.1", "pandas==3.1.1"])

@step
def first(day: str) -> int:
    return len(day)

@step(step_operator="large", image=IMAGE, resources=Resources(cpus=4, memory="16GiB"), timeout="6h", retries=2)
def train(value: int, rate: float) -> int:
    return value + 1

@pipeline(schedule="@daily")
def measured(rate: float = 0.1):
    value = first("{{ ds }}")
    for number in range(STEPS - 1):
        value = train.override(name=f"train_{number}")(value, rate)
"""

_TASKFLOW = """\
from datetime import timedelta
from airflow.sdk import dag, task

@task
def first(day: str) -> int:
    return len(day)

@task(execution_timeout=timedelta(hours=6), retries=2)
def train(value: int, rate: float) -> int:
    return value + 1

@dag(schedule="@daily", catchup=False)
def measured(rate: float = 0.1):
    value = first("{{ ds }}")
    for number in range(STEPS - 1):
        value = train.override(task_id=f"train_{number}")(value, rate)

measured()
"""

# Names that a TaskFlow file uses: they are loaded on first use, and the product's cost is what comes on top.
_AIRFLOW_NAMES = "from airflow.sdk import DAG, BaseOperator, dag, task; task.python"
_OUR_NAMES = "from airflow_stepops.dag import Image, Resources, pipeline, step"


def main() -> None:
    """Measure, check, and print one JSON object as the last line."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        ours, plain = _write(home / "ours", _PIPELINE), _write(home / "plain", _TASKFLOW)
        (ours / "stepops.yaml").write_text(_STACK_FILE)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "STEPOPS_"))},
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        measured = _child("parse", environment, str(ours), str(plain))
        imports = [_child("import", environment) for _ in range(IMPORT_ROUNDS)]
    heavy = sorted({*measured["heavy"], *(name for one in imports for name in one["heavy"])})
    our_ms, plain_ms = (statistics.median(measured[name]) * 1000 for name in ("ours", "plain"))
    import_ms = statistics.median(one["seconds"] for one in imports) * 1000
    figures = {
        "name": "parse",
        "ratio": round(our_ms / plain_ms, 3),
        "import_ms_over_airflow": round(import_ms, 1),
        "ratio_with_import": round((our_ms + import_ms) / plain_ms, 3),
        "ours_ms": round(our_ms, 1),
        "taskflow_ms": round(plain_ms, 1),
    }
    failed = bool(heavy) or figures["ratio"] > MOST_RATIO or import_ms > MOST_IMPORT_MS
    if failed:
        print(f"OVER THE LIMITS: ratio {MOST_RATIO}, import {MOST_IMPORT_MS} ms, no heavy module; loaded: {heavy}")
    print(json.dumps(figures))
    sys.exit(failed)


def _write(folder: Path, source: str) -> Path:
    folder.mkdir()
    (folder / "measured.py").write_text(source.replace("STEPS", str(STEPS)))
    return folder


def _child(what: str, environment: dict[str, str], *arguments: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.parse", what, *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_parse(ours: str, plain: str) -> dict[str, Any]:
    """Parse both folders in forked processes by turns; return their seconds, and the heavy modules that ours loaded."""
    exec(_AIRFLOW_NAMES, {})
    exec(_OUR_NAMES, {})
    from airflow.dag_processing import processor  # noqa: F401 - in memory before the fork, as in the DAG processor

    results: dict[str, Any] = {"ours": [], "plain": [], "heavy": []}
    for _ in range(ROUNDS):
        seconds, plain_modules = _in_fork(plain)
        results["plain"].append(seconds)
        seconds, modules = _in_fork(ours)
        results["ours"].append(seconds)
        results["heavy"] = sorted(set(modules) - set(plain_modules))
    return results


def _in_fork(folder: str) -> tuple[float, list[str]]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writer, json.dumps(_parse(folder)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        data = answer.read()
    os.waitpid(child, 0)
    seconds, heavy = json.loads(data)
    return seconds, heavy


def _parse(folder: str) -> tuple[float, list[str]]:
    import gc
    import time

    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    gc.collect()
    started = time.perf_counter()
    bag = DagBag(folder)
    for dag in bag.dags.values():
        DagSerialization.to_dict(dag)
    seconds = time.perf_counter() - started
    if bag.import_errors or len(bag.dags["measured"].tasks) != STEPS:
        raise AssertionError(f"the DAG was not parsed: {bag.import_errors}")
    return seconds, _heavy_modules()


def _heavy_modules() -> list[str]:
    return sorted({name for name in sys.modules for heavy in HEAVY if name == heavy or name.startswith(heavy + ".")})


def measure_import() -> dict[str, Any]:
    """Return the seconds that our names take on top of those of TaskFlow, and the heavy modules that they load."""
    import time

    exec(_AIRFLOW_NAMES, {})
    before = _heavy_modules()
    started = time.perf_counter()
    exec(_OUR_NAMES, {})
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "heavy": sorted(set(_heavy_modules()) - set(before))}


if __name__ == "__main__":
    if sys.argv[1:2] == ["parse"]:
        print(json.dumps(measure_parse(*sys.argv[2:])))
    elif sys.argv[1:2] == ["import"]:
        print(json.dumps(measure_import()))
    else:
        main()
