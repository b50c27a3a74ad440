"""Params of a DAG as arguments of mapped steps."""

from __future__ import annotations

from typing import Any

from airflow.sdk.definitions.param import DagParam


class StableParam(DagParam):
    """A param of a DAG with a stable text.

    Airflow serializes what ``.partial()`` fixes as text. That of a plain param holds its address in memory, so that
    every parse of the file would make a new version of the DAG.
    """

    def __init__(self, param: DagParam) -> None:
        self.__dict__.update(vars(param))

    def __repr__(self) -> str:
        return f"DagParam({self._name!r})"


def with_stable_params(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with stable params in place of plain ones."""
    return {name: StableParam(value) if type(value) is DagParam else value for name, value in arguments.items()}
