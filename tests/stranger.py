"""Another user of this machine, without a home and a name, as a container's often is; for tests that root runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UID = 50000
_FOLDERS = ("AIRFLOW", "HOME", "STEPOPS_", "UV_CACHE_DIR", "XDG_")

#: May read what is root's, so that an interpreter in root's home can be run, and write only what is its own.
_BECOME = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
_BECOME += [f"--{kind}=-all,+dac_read_search" for kind in ("bounding-set", "inh-caps", "ambient-caps")]


@pytest.fixture
def strangers_folder() -> Iterator[Path]:
    """An empty folder of the other user, where also the temporary files are."""
    assert os.geteuid() == 0, "only root can become another user: run these tests as root"
    folder = Path(tempfile.mkdtemp(prefix="stranger-", dir="/tmp"))
    os.chown(folder, UID, UID)
    yield folder
    shutil.rmtree(folder)


def as_stranger(arguments: Sequence[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python as the other user, with nothing in its environment that says where a folder is but what is given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOLDERS)}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **variables}
    command = [*_BECOME, sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
