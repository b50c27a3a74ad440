"""The flavor ``scarce``, installed as another package would be."""

from __future__ import annotations

from pathlib import Path

import pytest

STACK = """\
version: 1
active: default
step_operators:
  scarce: {{flavor: scarce{settings}}}
stacks:
  default: {{artifact_store: local, container_registry: local, step_operators: [scarce]}}
"""


class Scarce:
    """Writes stack files whose step operator is ``scarce``."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def set(self, **settings: str) -> None:
        """Write the stack file; settings in YAML."""
        self.file.write_text(STACK.format(settings="".join(f", {name}: {value}" for name, value in settings.items())))


@pytest.fixture
def scarce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scarce:
    """The flavor, and a stack file that is used."""
    package = tmp_path / "installed" / "scarce-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: scarce\nVersion: 1.0\n")
    point = "scarce = tests.operators.scarce:ScarceStepOperator"
    (package / "entry_points.txt").write_text(f"[airflow_stepops.step_operators]\n{point}\n")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("STEPOPS_CONFIG", str(tmp_path / "stepops.yaml"))
    made = Scarce(tmp_path / "stepops.yaml")
    made.set()
    return made
