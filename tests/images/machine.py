"""One machine of :mod:`tests.images.test_machines`: builds the image of a code folder and prints its digest.

usage: python -m tests.images.machine CODE_FOLDER REPOSITORY BASE
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from airflow_stepops.images.builder import plan_image
from airflow_stepops.images.registry.client import RegistryClient
from airflow_stepops.options import Image
from airflow_stepops.stacks.components import ImageTarget
from tests.engines import BASE_PYTHON


def main() -> None:
    """Build and report."""
    os.umask(int(os.environ["MACHINE_UMASK"], 8))
    root = Path(sys.argv[1])
    built = plan_image(
        Image(requirements=["httpx[cli]==0.28.1", "numpy==2.2.6"], python=BASE_PYTHON),
        target=ImageTarget(sys.argv[3], "linux/amd64"),
        code_root=root,
        dag_file=root / "dag.py",
        repository=RegistryClient(sys.argv[2]),
        builder=None,
        report=lambda _: None,
    ).ensure()
    assert not built.reused
    print(built.digest, built.tag, os.getuid())


if __name__ == "__main__":
    main()
