"""Saving and loading take little memory beside the value: measured by the kernel, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest

from airflow_stepops.artifacts import ArtifactReference
from airflow_stepops.artifacts.store import ArtifactStore

SIZE = 256 * 1024 * 1024
#: What is needed beside the value, over its size: buffers, row groups, code that is first used.
MOST_BESIDE = 0.3

CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from airflow_stepops.artifacts import ArtifactReference, values
from airflow_stepops.artifacts.store import ArtifactStore

def memory(line):
    status = Path("/proc/self/status").read_text()
    return int(status.split(line)[1].split()[0]) * 1024

verb, kind, size, root, given = sys.argv[1:]
if kind != "array":
    import pandas as pd
    import pyarrow.parquet
if verb == "save":
    random = np.random.default_rng(0)
    count = int(size) // 8
    value = random.random(count)
    if kind != "array":
        columns = np.split(value, 16)
        value = pd.DataFrame({f"c{number}": column for number, column in enumerate(columns)})
        if kind == "measurements and counts":
            value = value.assign(**{f"c{number}": random.integers(0, 1000, count // 16) for number in range(8)})
        del columns
# Not getrusage(): its peak has that of the parent in it, and cannot be set back.
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS:")
if verb == "save":
    reference = values.save(value, ArtifactStore(root), f"{root}/value")
else:
    reference = ArtifactReference.deserialize(json.loads(given))
    value = reference.load()
growth = memory("VmHWM:") - before
print(json.dumps({"growth": growth, "reference": reference.serialize()}))
"""


@dataclass
class Measured:
    """What one process needed."""

    growth: int
    reference: ArtifactReference


def measure(verb: str, kind: str, root: str, reference: ArtifactReference | None = None) -> Measured:
    """Save or load in a process; its environment says where S3 is."""
    given = json.dumps(reference.serialize()) if reference else ""
    command = [sys.executable, "-c", CHILD, verb, kind, str(SIZE), root, given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    return Measured(found["growth"], ArtifactReference.deserialize(found["reference"]))


@pytest.mark.parametrize(
    ("kind", "store"),
    [
        ("array", "folder_store"),
        ("array", "s3_store"),
        ("measurements and counts", "folder_store"),
    ],
)
def test_a_value_is_in_memory_once_while_it_is_saved_and_loaded(
    kind: str, store: str, request: pytest.FixtureRequest
) -> None:
    place: ArtifactStore = request.getfixturevalue(store)
    saved = measure("save", kind, place.root)
    assert saved.growth < MOST_BESIDE * SIZE
    loaded = measure("load", kind, place.root, saved.reference)
    assert SIZE <= loaded.growth < (1 + MOST_BESIDE) * SIZE
