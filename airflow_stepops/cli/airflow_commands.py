"""``airflow stepops …``: the same commands in Airflow's own command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand

from airflow_stepops.cli.main import COMMANDS

_ARGUMENTS = Arg(("arguments",), nargs=argparse.REMAINDER, help="as for 'stepops'; 'help' shows what there is")  # type: ignore[no-untyped-call]


def get_cli_commands() -> list[CLICommand]:
    """Return the group ``stepops``. Airflow asks each provider for this at every start, so nothing more is imported."""
    commands = [
        ActionCommand(name=name, help=text, func=_runner(name), args=(_ARGUMENTS,))
        for name, (_, text) in COMMANDS.items()
    ]
    return [GroupCommand(name="stepops", help="Single steps of DAGs on managed ML services", subcommands=commands)]


def _runner(name: str) -> Callable[[Any], NoReturn]:
    def run(arguments: Any) -> NoReturn:
        given = list(arguments.arguments)
        if given[-1:] == ["help"]:  # Airflow's own parser takes --help
            given[-1] = "--help"
        # A process of its own: 'stepops run' has to set the database before Airflow is imported.
        os.execv(sys.executable, [sys.executable, "-P", "-m", "airflow_stepops.cli", name, *given])  # noqa: S606

    return run
