"""From the start of the process to the first line of the step, over a bare ``python -c pass``.

A job with a ``file://`` spec runs from folders laid out as in an image: this Python without its site-packages, and on
its path the user's code and the runtime alone. The two take turns, and medians are compared.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.images.contents import shipped_files
from airflow_stepops.runtime.spec import SPEC_VARIABLE, Attempt, JobSpec, StepSource

ROUNDS = 25
MOST_MS = 150.0

_STEP = """\
from airflow_stepops.dag import step

@step(step_operator=True)
def train():
    import time
    print(time.clock_gettime(time.CLOCK_MONOTONIC))
"""
