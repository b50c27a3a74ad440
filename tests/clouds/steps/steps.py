"""Steps of the tests of job services. They run where the tests' own modules are not."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path


def add(left: int, right: int) -> int:
    return left + right


def fail() -> None:
    raise ValueError("the rate is negative")


def leave(code: int) -> None:
    os._exit(code)


def wait(seconds: float = 300) -> str:
    print("waiting", flush=True)
    time.sleep(seconds)
    return "waited"


def clean_up(file: str) -> None:
    print("waiting", flush=True)
    try:
        time.sleep(300)
    finally:
        Path(file).write_text("clean")


def count(lines: int) -> None:
    for number in range(lines):
        print("line", number)
    sys.stdout.write("no end of line")
    sys.stdout.flush()


def long_line(characters: int) -> None:
    print("é" * characters)
    print("next")


def two_streams() -> None:
    sys.stdout.write("begun ")
    sys.stdout.flush()
    print("meanwhile", file=sys.stderr, flush=True)
    time.sleep(1.5)
    print("and ended", flush=True)


def secret() -> list[object]:
    return [os.environ["TOKEN"], sorted(name for name in os.environ if name.startswith("TOKEN"))]


def variables() -> dict[str, str]:
    return dict(os.environ)


def found(modules: list[str]) -> list[str]:
    """Return which modules could be imported."""
    return [name for name in modules if importlib.util.find_spec(name) is not None]


def write_beside() -> list[str]:
    Path("written.txt").write_text("here")
    return [str(Path.cwd()), Path("written.txt").read_text()]


def leave_a_child() -> int:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)"])
    print("waiting", flush=True)
    return child.pid


def wait_with_a_child() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)"], start_new_session=True)
    print(child.pid, flush=True)
    time.sleep(300)


def take(megabytes: int) -> int:
    return len(bytearray(megabytes << 20))


def machines() -> list[object]:
    from airflow_stepops import cluster

    here = cluster()
    print(f"machine {here.rank} of {here.size}", flush=True)
    return [here.rank, here.size, here.hosts[0], os.environ["WORLD_SIZE"]]
