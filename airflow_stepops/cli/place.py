"""The stack file that commands read and change, and the DAG files that they read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from airflow_stepops.errors import ConfigurationError
from airflow_stepops.stacks import file


def to_read() -> file.StackFile:
    """Return the stacks that a pipeline in this folder would run with."""
    return file.load(Path.cwd())


def to_change() -> Path:
    """Return the path of the file, which may not be there yet."""
    return file.file_to_change(Path.cwd())


def dag_file(path: Path) -> Path:
    """Return the absolute path of a DAG file.

    :raises ConfigurationError: if it is not there.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such file.")
    return path.resolve()


def use(dag: Path, stack: str | None) -> None:
    """Let a DAG file that is read in this process find the stack file that the commands show, and a stack in it.

    :param stack: for pipelines that name none; ``None`` is the active one.
    :raises StackError: if there is no such stack.
    """
    found = file.find_file(dag.parent) or file.find_file(Path.cwd())
    if found is not None:
        os.environ["STEPOPS_CONFIG"] = str(found)
    if stack is not None:
        file.load().entry("stacks", stack)
        os.environ["STEPOPS_STACK"] = stack


def complete(section: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what completes names in the shell: those of a kind of component, or of ``"stacks"``."""

    def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return [name for name in to_read().names(section) if name.startswith(incomplete)]

    return names


def say_changed(what: str, path: Path) -> None:
    """Tell the person what is now in which file."""
    click.echo(f"{what} in {path}.")
