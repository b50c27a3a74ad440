"""``stepops --help`` over a bare ``python -c "import click"``, which is the library of the command line.

The two take turns, each a process of its own as a person's shell starts it; medians are compared. Airflow must not be
imported for it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 25
MOST_RATIO = 3.0

_HELP = [str(Path(sys.executable).with_name("stepops")), "--help"]
_BARE = [sys.executable, "-c", "import click"]
_IMPORTED = (
    "import sys\n"
    "from airflow_stepops.cli.main import run\n"
    "assert run(['--help']) == 0\n"
    "sys.exit(any(name.partition('.')[0] in ('airflow', 'pydantic', 'yaml', 'rich') for name in sys.modules))\n"
)


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    heavy = subprocess.run([sys.executable, "-c", _IMPORTED], stdout=subprocess.DEVNULL, check=False).returncode
    times: dict[str, list[float]] = {"help": [], "bare": []}
    for _ in range(ROUNDS + 1):
        for side, command in (("help", _HELP), ("bare", _BARE)):
            started = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[side].append(time.perf_counter() - started)
    # The first round compiles the modules.
    help_, bare = (statistics.median(times[side][1:]) * 1000 for side in ("help", "bare"))
    print(f"stepops --help {help_:.1f} ms, python -c 'import click' {bare:.1f} ms")
    figures = {"name": "cli", "help_ratio": round(help_ / bare, 2)}
    print(json.dumps(figures))
    sys.exit(bool(heavy) or figures["help_ratio"] >= MOST_RATIO)


if __name__ == "__main__":
    main()
