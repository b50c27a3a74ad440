"""Finding the step's function in the image."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_stepops.artifacts import modules
from airflow_stepops.errors import SpecError
from airflow_stepops.runtime import stubs
from airflow_stepops.runtime.spec import StepSource


def load_function(step: StepSource) -> Callable[..., Any]:
    """Import the step's module from the code layer and return the function.

    While the module is imported, Airflow is stood in for, unless it is in the image.

    :raises SpecError: if the file or the function is not there.
    :raises ModuleNotFoundError: with what to do, if the module imports what is not in the image.
    """
    root = _code_root(step.file)
    _read_path_files()
    try:
        with stubs.standing_in():
            found: Any = _import(step, root)
    except ModuleNotFoundError as error:
        error.add_note(
            f"{error.name!r} is not in the step's image: add its package to Image(requirements=[…]), or keep "
            "its module in the folder of the DAG file."
        )
        raise
    except Exception as error:
        if names := stubs.stood_in():
            error.add_note(
                f"{step.file} was imported in the step's image, where there is no {' and no '.join(names)}: what the "
                "file does with it at its top is skipped. Move what fails into the step or into the pipeline."
            )
        raise
    for part in step.qualname.split("."):
        if not hasattr(found, part):
            raise SpecError(f"{step.file} has no function {step.qualname!r}: the image holds another version of it.")
        found = getattr(found, part)
    function: Callable[..., Any] = modules.unwrapped(found)
    if not callable(function):
        raise SpecError(f"{step.qualname!r} in {step.file} is a {type(function).__qualname__}, not a function.")
    return function


def _code_root(file: str) -> Path:
    for entry in reversed(sys.path):  # the code layer is the last, and not the only one with a numbers.py
        if entry and Path(entry, file).is_file():
            return Path(entry)
    raise SpecError(f"the step's file {file!r} is not in the image: was it left out by .stepopsignore?")


def _read_path_files() -> None:
    """Honour the ``.pth`` files of the requirements, which Python reads only in folders that it calls site."""
    for entry in [entry for entry in sys.path if entry.endswith("/requirements")]:
        if any(Path(entry).glob("*.pth")):
            import site

            site.addsitedir(entry)


def _import(step: StepSource, root: Path) -> Any:
    # What is called like a module of the standard library must not stand in for it where others import that.
    taken = step.module.partition(".")[0] in sys.stdlib_module_names
    name = f"step file {step.module}" if taken else step.module
    spec = importlib.util.spec_from_file_location(name, root / step.file)
    if spec is None or spec.loader is None:
        raise SpecError(f"{step.file!r} is not a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    modules.alias(step.module, name, vars(module))
    spec.loader.exec_module(module)
    return module
