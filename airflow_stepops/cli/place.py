"""The stack file that commands read and change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from airflow_stepops.stacks import file


def to_read() -> file.StackFile:
    """Return the stacks that a pipeline in this folder would run with."""
    return file.load(Path.cwd())


def to_change() -> Path:
    """Return the path of the file, which may not be there yet."""
    return file.file_to_change(Path.cwd())


def complete(section: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what completes names in the shell: those of a kind of component, or of ``"stacks"``."""

    def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return [name for name in to_read().names(section) if name.startswith(incomplete)]

    return names


def say_changed(what: str, path: Path) -> None:
    """Tell the person what is now in which file."""
    click.echo(f"{what} in {path}.")
