"""The commands of ``stepops``, and what is said when one fails."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from airflow_stepops import __version__
from airflow_stepops.errors import ConfigurationError, StepopsError, did_you_mean

#: Command → the module and name of its object, and one line of help. Airflow's own command line shows them too.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("airflow_stepops.cli.init:init", "Make a project with a pipeline, a stack file and tests."),
    "run": ("airflow_stepops.cli.run:run", "Run a DAG file once, on this machine."),
    "build": ("airflow_stepops.cli.build:build", "Build and push the images of DAG files."),
    "stack": ("airflow_stepops.cli.stack:stack", "Register, choose and look at stacks."),
    "artifact-store": ("airflow_stepops.cli.components:artifact_store", "Register artifact stores."),
    "container-registry": ("airflow_stepops.cli.components:container_registry", "Register container registries."),
    "image-builder": ("airflow_stepops.cli.components:image_builder", "Register image builders."),
    "step-operator": ("airflow_stepops.cli.components:step_operator", "Register step operators."),
    "flavor": ("airflow_stepops.cli.flavor:flavor", "Show the flavors of components and their settings."),
    "doctor": ("airflow_stepops.cli.doctor:doctor", "Try each part of a stack for real."),
    "permissions": ("airflow_stepops.cli.permissions:permissions", "Print the least rights that a stack needs."),
    "runs": ("airflow_stepops.cli.runs:runs", "Look at runs: their steps, where each ran, what it left."),
    "jobs": ("airflow_stepops.cli.jobs:jobs", "Look at the jobs of runs."),
    "logs": ("airflow_stepops.cli.logs:logs", "Print the log of a step's job."),
    "cancel": ("airflow_stepops.cli.cancel:cancel", "Stop the jobs of a run, or of one of its steps."),
    "artifacts": ("airflow_stepops.cli.artifacts:artifacts", "Look at what steps have left."),
    "prune": ("airflow_stepops.cli.prune:prune", "Delete old runs, orphaned artifacts and unused caches."),
}

#: Airflow logs on standard output, where commands print what they are asked for: only what is fatal, unless a person
#: has set another level.
QUIET = ("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")

#: Wrong input; a failure of something else; interrupted.
WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130


class Group(click.Group):
    """A group that names the nearest command when there is none of a name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command.

        :raises click.UsageError: naming the nearest one.
        """
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            names = self.list_commands(ctx)
            raise click.UsageError(
                f"there is no command {args[0]!r}.{did_you_mean(args[0], names)} There are: {', '.join(names)}.", ctx
            )
        return super().resolve_command(ctx, args)


class Root(Group):
    """The group of all commands, which imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order in which help shows them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write names and help without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="STEPOPS_CONFIG",
    help="The stack file; default: stepops.yaml in this folder or one above it, or in the DAGs folder.",
)
@click.version_option(__version__, prog_name="stepops")
def stepops(config: Path | None) -> None:
    """Run single steps of Airflow DAGs on managed ML services: stacks, images, runs and jobs."""
    if config is not None:  # so that it is known below, and to processes that a command starts
        os.environ["STEPOPS_CONFIG"] = str(config.absolute())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code: 0, 2 for wrong input, 1 when something else fails.

    :param arguments: default: those of the process.
    """
    os.environ.setdefault(*QUIET)
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what is wrong is one line on standard error."""
    return exit_code(lambda: stepops.main(arguments, prog_name="stepops", standalone_mode=False))


def exit_code(command: Callable[[], Any]) -> int:
    """Call what a command does and return its exit code; what is wrong is one line on standard error."""
    try:
        code: Any = command()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return WRONG_INPUT
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "stepops"
        return _fail(f"{path}: {_one_line(error.format_message())}", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("stepops: interrupted", INTERRUPTED)
    except StepopsError as error:
        return _fail(f"stepops: {error}", WRONG_INPUT if isinstance(error, ConfigurationError) else FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read it has gone
        return FAILED
    return code if isinstance(code, int) else 0


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line[:1].lower() + line[1:] if line[1:2].islower() else line


def _fail(text: str, code: int) -> int:
    click.echo(click.style(text, fg="red") if sys.stderr.isatty() else text, err=True)
    return code
