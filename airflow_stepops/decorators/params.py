"""Params of a DAG as arguments of steps."""

from __future__ import annotations

from typing import Any

from airflow.sdk.definitions.param import DagParam


class StableParam(DagParam):
    """A param of a DAG with a stable text.

    Airflow serializes what ``.partial()`` fixes as text, and before 3.2 all arguments. The text of a plain param holds
    its address in memory, so that every parse of the file would make a new version of the DAG.
    """

    def __init__(self, param: DagParam) -> None:
        self.__dict__.update(vars(param))

    def __repr__(self) -> str:
        return f"DagParam({self._name!r})"


def stable_param(value: Any) -> Any:
    """Return a param with a stable text in place of a plain one, and all else as it is."""
    return StableParam(value) if type(value) is DagParam else value


def with_stable_params(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with stable params in place of plain ones."""
    return {name: stable_param(value) for name, value in arguments.items()}
