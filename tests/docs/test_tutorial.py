"""Pages of the documentation, executed literally in an empty folder.

Code blocks with a title are files. Blocks of the language ``console`` hold commands after ``$``, each followed by the
lines that it prints; ``…`` stands for any text, and alone on a line for any lines.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uv

DOCS = Path(__file__).resolve().parents[2] / "docs"

_BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)
_END = "end-of-command"


@dataclass
class Command:
    line: str
    expected: list[str] = field(default_factory=list)

    def matches(self, printed: list[str]) -> bool:
        parts = [r"(?:[^\n]*\n)*?" if line == "…" else _pattern(line) + r"\n" for line in self.expected]
        return re.fullmatch("".join(parts), "".join(f"{line}\n" for line in printed)) is not None


def _pattern(line: str) -> str:
    return "[^\n]*".join(re.escape(part) for part in line.split("…"))


def _uv_cache() -> str:
    """Return the folder of downloaded wheels, so that the tutorial does not download them again."""
    return subprocess.run([uv.find_uv_bin(), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()


class Shell:
    """One bash, so that what a command exports is there for the next."""

    def __init__(self, folder: Path) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "STEPOPS_"))
        }
        environment |= {"HOME": str(folder / "home"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        (folder / "home").mkdir()
        (folder / "work").mkdir()
        self.folder = folder / "work"
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, line: str) -> tuple[int, list[str]]:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{line}\necho {_END} $?\n")
        self._bash.stdin.flush()
        printed = []
        for text in self._bash.stdout:
            if text.startswith(_END):
                return int(text.split()[1]), printed
            printed.append(text.rstrip("\n"))
        raise AssertionError(f"bash ended in {line!r}: {printed}")

    def close(self) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        self._bash.wait(timeout=30)


def commands(text: str) -> Iterator[Command]:
    command: Command | None = None
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command
            command = Command(line.removeprefix("$ "))
        else:
            assert command is not None, f"output without a command: {line!r}"
            command.expected.append(line)
    if command:
        yield command


@pytest.mark.parametrize("page", ["tutorial.md", "command-line.md", "runs-and-jobs.md"])
def test_every_file_and_command_of_a_page_does_what_it_says(tmp_path: Path, page: str) -> None:
    shell = Shell(tmp_path)
    ran = 0
    try:
        for block in _BLOCK.finditer((DOCS / page).read_text()):
            if block["title"]:
                file = shell.folder / block["title"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block["text"])
            elif block["language"] == "console":
                for command in commands(block["text"]):
                    code, printed = shell.run(command.line)
                    shown = "\n".join(printed)
                    assert code == 0, f"$ {command.line}\n{shown}"
                    assert command.matches(printed), f"$ {command.line}\n{shown}\n--- expected:\n" + "\n".join(
                        command.expected
                    )
                    ran += 1
    finally:
        shell.close()
    assert ran > 10
