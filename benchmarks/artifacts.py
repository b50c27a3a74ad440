"""Saving and loading 1 GB values through the artifact store, against NumPy and pandas on local disk, and a raw copy.

Each measurement is a process of its own, as steps are: on virtual machines the first touch of memory costs more than
anything else, and a second round in the same process would not pay for it. The sides take turns; medians are compared.
``STEPOPS_BENCH_MB`` makes the values smaller.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MEGABYTES = int(os.environ.get("STEPOPS_BENCH_MB", "1024"))
ROUNDS = 3
MOST_RATIO = 1.25
_COLUMNS = 16


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="stepops-bench-") as folder:
        for _ in range(ROUNDS):
            for side in ("numpy_ours", "numpy_plain", "raw", "pandas_ours", "pandas_plain"):
                work = Path(folder, side)
                saved = _child(f"save_{side}", work)
                loaded = _child(f"load_{side}", work)
                shutil.rmtree(work)
                seconds.setdefault(side, []).append(saved + loaded)
                print(f"{side:<13} save {saved:6.2f} s, load {loaded:6.2f} s")
    middle = {side: statistics.median(times) for side, times in seconds.items()}
    figures = {
        "name": "artifacts",
        "numpy_ratio": round(middle["numpy_ours"] / middle["numpy_plain"], 3),
        "pandas_ratio": round(middle["pandas_ours"] / middle["pandas_plain"], 3),
        "raw_ratio": round(middle["numpy_ours"] / middle["raw"], 3),
    }
    print(json.dumps(figures))
    sys.exit(max(figures["numpy_ratio"], figures["pandas_ratio"]) > MOST_RATIO)


def _child(what: str, folder: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.artifacts", what, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.split()[-1])


def measure(what: str, folder: Path) -> float:
    """Do one thing in this process and return its seconds; making the value is not counted."""
    verb, _, side = what.partition("_")
    kind, _, whose = side.partition("_")
    folder.mkdir(exist_ok=True)
    value = _value(kind) if verb == "save" else None
    _warm(kind)
    started = time.perf_counter()
    if kind == "raw":
        _raw(verb, folder, value)
    elif whose == "ours":
        _ours(verb, folder, value)
    else:
        _plain(verb, kind, folder, value)
    return time.perf_counter() - started


def _value(kind: str) -> Any:
    import numpy as np

    array = np.random.default_rng(0).random(MEGABYTES * 1024 * 1024 // 8)
    if kind == "raw":
        return memoryview(array).cast("B")
    if kind == "numpy":
        return array
    import pandas as pd

    return pd.DataFrame({f"c{number}": column for number, column in enumerate(np.split(array, _COLUMNS))})


def _warm(kind: str) -> None:
    """Import what both sides use, so that neither pays for it."""
    from airflow_stepops.artifacts import values  # noqa: F401

    if kind == "pandas":
        import pandas  # noqa: F401
        import pyarrow.parquet  # noqa: F401
    if kind == "numpy":
        import numpy  # noqa: F401


def _ours(verb: str, folder: Path, value: Any) -> None:
    from airflow_stepops.artifacts import values
    from airflow_stepops.artifacts.reference import ArtifactReference
    from airflow_stepops.artifacts.store import ArtifactStore

    store = ArtifactStore(folder.as_uri())
    note = folder / "reference"
    if verb == "save":
        note.write_text(json.dumps(values.save(value, store, f"{store.root}/value").serialize()))
    else:
        values.load(ArtifactReference.deserialize(json.loads(note.read_text())), store)


def _plain(verb: str, kind: str, folder: Path, value: Any) -> None:
    import numpy as np
    import pandas as pd

    if kind == "numpy":
        path = folder / "value.npy"
        np.save(path, value) if verb == "save" else np.load(path)
    else:
        path = folder / "value.parquet"
        value.to_parquet(path) if verb == "save" else pd.read_parquet(path)


def _raw(verb: str, folder: Path, value: Any) -> None:
    path = folder / "value"
    if verb == "save":
        path.write_bytes(value)
    else:
        path.read_bytes()


if __name__ == "__main__":
    if sys.argv[1:]:
        print(measure(sys.argv[1], Path(sys.argv[2])))
    else:
        main()
