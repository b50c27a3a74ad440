"""Where a step's function is: its file in the code folder, and the name by which the image imports it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_stepops.errors import StepDefinitionError
from airflow_stepops.runtime.spec import StepSource

#: Marks the root of the code that travels with a step, besides saying what stays out.
_MARKER = ".stepopsignore"


def check_shippable(function: Callable[..., Any]) -> None:
    """Check that a job can import the function by name.

    :raises StepDefinitionError: for what has no name at the top of a module: lambdas, nested functions, closures,
        methods.
    """
    name = function.__qualname__
    if function.__name__ == "<lambda>":
        problem = "it is a lambda, which has no name to import. Write it with def at the top of the module"
    elif "<locals>" in name:
        captured = ", ".join(function.__code__.co_freevars)
        problem = "it is defined inside another function" + (f" and captures {captured}" if captured else "")
        problem += ". Move it to the top of the module and pass what it needs as arguments"
    elif "." in name:
        problem = "it is a method. Write a function at the top of the module that calls it"
    else:
        return
    file, line = function.__code__.co_filename, function.__code__.co_firstlineno
    raise StepDefinitionError(f"Step {name!r} ({file}:{line}) cannot run on a step operator: {problem}.")


def code_root(file: Path, bundle: Path | None) -> Path:
    """Return the folder of code that travels with the steps of a DAG file.

    It is the nearest folder above the file that holds a ``.stepopsignore``, up to the DAG bundle; else the bundle;
    else the file's own folder.

    :param bundle: root of the DAG bundle, where known.
    """
    for folder in file.parents:
        if (folder / _MARKER).exists() or folder == bundle:
            return folder
    return file.parent


def step_source(function: Callable[..., Any], root: Path) -> StepSource:
    """Describe the function for the job spec.

    :raises StepDefinitionError: if its file is outside of the code folder.
    """
    file = source_file(function)
    if not file.is_relative_to(root):
        raise StepDefinitionError(
            f"Step {function.__qualname__!r} is defined in {file}, outside of the code folder {root}: write a step "
            "beside the DAG that calls it, and name its package in Image(requirements=[…])."
        )
    relative = file.relative_to(root)
    try:
        text = inspect.getsource(function)
    except OSError:
        text = function.__code__.co_code.hex()  # the text is gone: what was compiled is the identity
    return StepSource(
        file=relative.as_posix(),
        module=".".join(relative.with_suffix("").parts),
        qualname=function.__qualname__,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def source_file(function: Callable[..., Any]) -> Path:
    """Return the file that holds the function, with symbolic links in its folder's path resolved."""
    return _real_path(inspect.unwrap(function).__code__.co_filename)


@functools.lru_cache(maxsize=256)
def _real_path(file: str) -> Path:
    return Path(os.path.realpath(file))
