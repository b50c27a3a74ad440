"""A build of an image without a base that is unpacked then, and one that is killed.

usage: python -m tests.images.builds CODE_FOLDER IMAGES
"""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_stepops.home_folders import cache_folder
from airflow_stepops.images.builder import plan_image
from airflow_stepops.images.registry.layout import LayoutRepository
from airflow_stepops.images.unpack import unpack_layers
from airflow_stepops.options import Image
from airflow_stepops.stacks.components import ImageTarget


def build_and_unpack(code: Path, images: Path) -> Path:
    """Build the image of a code folder, with a requirement, and return the folder of its code, unpacked."""
    repository = LayoutRepository(images)
    built = plan_image(
        Image(requirements=["idna==3.10"]),
        target=ImageTarget(base=None, platform=None),
        code_root=code,
        dag_file=code / "dag.py",
        repository=repository,
        builder=None,
        report=lambda _: None,
    ).ensure()
    return unpack_layers(repository, built.digest, cache_folder() / "layers").code


def in_a_process(call: Callable[[], object]) -> int:
    """Begin a call in a process of its own and return its number; it ends with 0, or 1 for an error."""
    pid = os.fork()
    if pid == 0:
        try:
            call()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def ended(pid: int) -> int:
    """Wait for a process, and return its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(moment: str, call: Callable[[], object]) -> None:
    """Make a call in a process that kills itself when it calls a function.

    :param moment: the function's whole name; ``:3`` behind it is for the fourth call.
    """

    def dying() -> None:
        name, _, calls = moment.partition(":")
        owner, _, function = name.rpartition(".")
        os.setsid()
        place, left = pkgutil.resolve_name(owner), int(calls or 0)
        real = getattr(place, function)

        def dies(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments, **options)

        setattr(place, function, dies)
        call()

    pid = in_a_process(dying)
    assert ended(pid) == -signal.SIGKILL
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it has started


if __name__ == "__main__":
    print(build_and_unpack(Path(sys.argv[1]), Path(sys.argv[2])))
