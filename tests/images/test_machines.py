"""Two machines make the same image, byte by byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.engines import run

FILES = {
    "dag.py": "import steps\n",
    "steps.py": "ANSWER = 42\n",
    "pkg/Transparent Busy.ani": "a name with a space",
    "pkg/größe.py": "# ü\n",
    "pkg/" + "long" * 40 + ".txt": "a long name",
    "run.sh": "#!/bin/sh\n",
}


def checkout(folder: Path, mtime: int, mask: int) -> Path:
    """Write the project as a checkout on some machine leaves it."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod((0o777 if name.endswith(".sh") else 0o666) & ~mask)
        os.utime(path, (mtime, mtime))
    (folder / "link").symlink_to("pkg")
    return folder


def build(code: Path, home: Path, repository: str, base: str, *, other_user: bool, **environment: str) -> list[str]:
    """Build in a process of its own; return digest, tag and user id."""
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    command = [sys.executable, "-m", "tests.images.machine", str(code), repository, base]
    if other_user and os.getuid() == 0:
        # Another user, who may still read the Python of this one.
        capability = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        command = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *capability, *command]
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), "STEPOPS_HOME": str(home / "stepops"), **environment}
    variables |= {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_", "PIP_", "HTTP"))}
    del variables["UV_CACHE_DIR"]  # of this user
    repository_root = Path(__file__).parents[2]
    done = subprocess.run(command, env=variables, cwd=repository_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_two_machines_make_the_same_image(tmp_path: Path, registry: str, base_image: str) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    here = checkout(tmp_path / "here" / "project", 1_700_000_000, 0o022)
    there = checkout(tmp_path / "a" / "quite" / "different" / "place", 1_000_000_000, 0o002)
    one = build(
        here, tmp_path / "home", f"{registry}/machines/one", base_image,
        other_user=False, TZ="Asia/Kathmandu", LC_ALL="C.UTF-8", MACHINE_UMASK="022",
    )  # fmt: skip
    two = build(
        there, tmp_path / "elsewhere", f"{registry}/machines/two", base_image,
        other_user=True, TZ="America/St_Johns", LC_ALL="POSIX", PYTHONHASHSEED="7", MACHINE_UMASK="077",
    )  # fmt: skip
    assert one[:2] == two[:2]
    assert one[2] != two[2] or os.getuid() != 0
    # What another tool says the two repositories hold.
    inspected = [
        run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/machines/{name}:{one[1]}")
        for name in ("one", "two")
    ]
    assert inspected[0] == inspected[1]
