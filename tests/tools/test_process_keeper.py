"""The keeper of processes, through its pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tools import process_keeper

#: Starts a child in a session of its own, writes both ids, and ignores the request to stop.
STUBBORN = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


@pytest.fixture
def keeper() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, process_keeper.__file__, "0.3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=30)


def ask(keeper: subprocess.Popen[str], **request: Any) -> Any:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    keeper.stdin.write(json.dumps(request) + "\n")
    keeper.stdin.flush()
    return json.loads(keeper.stdout.readline())


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_stubborn(keeper: subprocess.Popen[str], folder: Path) -> list[int]:
    ids = folder / "ids"
    command = [sys.executable, "-c", STUBBORN, str(ids)]
    ask(keeper, do="start", name="stubborn", command=command, log=str(folder / "log"))
    until(lambda: ids.exists() and " " in ids.read_text())
    return [int(pid) for pid in ids.read_text().split()]


def test_the_output_of_a_process_is_in_its_log_and_its_exit_code_in_the_status(
    keeper: subprocess.Popen[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "print('hello'); raise SystemExit(3)"]
    ask(keeper, do="start", name="short", command=command, log=str(tmp_path / "log"))
    until(lambda: ask(keeper, do="status") == {"short": 3})
    assert (tmp_path / "log").read_text() == "hello\n"


def test_a_process_that_ignores_the_request_to_stop_is_killed(keeper: subprocess.Popen[str], tmp_path: Path) -> None:
    pid, _ = start_stubborn(keeper, tmp_path)
    assert ask(keeper, do="stop", name="stubborn") == {"returncode": -9}
    assert not running(pid)
    assert ask(keeper, do="status") == {}


def test_when_the_input_ends_nothing_is_left_not_even_in_sessions_of_their_own(
    keeper: subprocess.Popen[str], tmp_path: Path
) -> None:
    pids = start_stubborn(keeper, tmp_path)
    assert all(running(pid) for pid in pids)
    assert keeper.stdin is not None
    keeper.stdin.close()
    assert keeper.wait(timeout=30) == 0
    assert not any(running(pid) for pid in pids)


def test_when_the_parent_is_killed_nothing_is_left(tmp_path: Path) -> None:
    program = f"""
import json, os, subprocess, sys, time
keeper = subprocess.Popen([sys.executable, {process_keeper.__file__!r}, "0.3"], stdin=subprocess.PIPE, text=True)
command = [sys.executable, "-c", {STUBBORN!r}, {str(tmp_path / "ids")!r}]
request = {{"do": "start", "name": "x", "command": command, "log": {str(tmp_path / "log")!r}}}
keeper.stdin.write(json.dumps(request) + "\\n")
keeper.stdin.flush()
while not os.path.exists({str(tmp_path / "ids")!r}): time.sleep(0.05)
time.sleep(0.2)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=False).returncode == -9
    pids = [int(pid) for pid in (tmp_path / "ids").read_text().split()]
    until(lambda: not any(running(pid) for pid in pids))
    assert os.getpid() not in pids
