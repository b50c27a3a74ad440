"""``stepops init``: an empty folder becomes a working project."""

from __future__ import annotations

from pathlib import Path

import click

from airflow_stepops.errors import ConfigurationError

_TEMPLATE = Path(__file__).parent / "template"
#: Files whose names begin with a dot in the project.
_HIDDEN = ("stepopsignore", "airflowignore", "gitignore")


@click.command("init", help="Make a project with a pipeline, a stack file and tests; default: in this folder.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(folder: Path) -> None:
    """Make a project."""
    files = {_place(path): path for path in sorted(_TEMPLATE.rglob("*")) if path.is_file() and path.suffix != ".pyc"}
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise ConfigurationError(f"{folder.resolve()} has {', '.join(there)} already: choose an empty folder.")
    try:
        for name, source in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: cannot be written: {error.strerror}.") from error
    click.echo(f"A project is in {folder.resolve()}: {', '.join(files)}.")
    go = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    click.echo(f"Run it: {go}stepops run pipeline.py")


def _place(path: Path) -> str:
    name = path.relative_to(_TEMPLATE).as_posix()
    return f".{name}" if name in _HIDDEN else name
