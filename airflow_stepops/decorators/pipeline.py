"""``@pipeline``: a function that compiles to one Airflow DAG."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, overload

from airflow.sdk import DAG, dag

from airflow_stepops.decorators.step import current_stack
from airflow_stepops.errors import StepDefinitionError, did_you_mean


@overload
def pipeline(function: Callable[..., Any], /) -> DAG: ...
@overload
def pipeline(
    function: None = None,
    /,
    *,
    stack: str | None = None,
    dag_id: str | None = None,
    schedule: Any = None,
    **dag_arguments: Any,
) -> Callable[[Callable[..., Any]], DAG]: ...
def pipeline(
    function: Callable[..., Any] | None = None,
    /,
    *,
    stack: str | None = None,
    dag_id: str | None = None,
    schedule: Any = None,
    **dag_arguments: Any,
) -> Any:
    """Compile a function to a DAG with a stable id. Its arguments, with their defaults, become params.

    :param stack: name of the stack for the steps of the pipeline; default: the active stack.
    :param dag_id: default: the function's name.
    :param schedule: as Airflow's; default: none, and no catch-up.
    :param dag_arguments: further arguments of Airflow's DAG.
    :returns: the DAG itself, so that Airflow finds it in the module.
    :raises StepDefinitionError: naming the argument, when one is unknown, or when a parameter has no default.
    """
    if function is None:
        return functools.partial(pipeline, stack=stack, dag_id=dag_id, schedule=schedule, **dag_arguments)
    if not inspect.isfunction(function):
        raise StepDefinitionError(
            f"@pipeline decorates a function, not {function!r}: use @pipeline or @pipeline(stack=…)."
        )
    _check(function, stack, dag_arguments)
    dag_arguments.setdefault("catchup", False)
    token = current_stack.set(stack)
    try:
        compiled = dag(dag_id=dag_id or function.__name__, schedule=schedule, **dag_arguments)(function)()
    finally:
        current_stack.reset(token)
    compiled.fileloc = function.__code__.co_filename
    return compiled


def _check(function: Callable[..., Any], stack: str | None, dag_arguments: dict[str, Any]) -> None:
    if stack is not None and not isinstance(stack, str):
        raise StepDefinitionError(f"@pipeline(stack={stack!r}): give the name of a stack.")
    allowed = _dag_arguments()
    for name in dag_arguments:
        if name not in allowed:
            near = did_you_mean(name, [*allowed, "stack"])
            raise StepDefinitionError(
                f"@pipeline has no argument {name!r}.{near} It takes stack, and the arguments of Airflow's DAG."
            )
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise StepDefinitionError(
                f"Pipeline {function.__name__!r}: *{parameter.name} cannot become a param; name each one."
            )
        if parameter.default is parameter.empty:
            raise StepDefinitionError(
                f"Pipeline {function.__name__!r}: its argument {parameter.name!r} needs a default, which a run may "
                "replace through the trigger form or --conf."
            )


@functools.cache
def _dag_arguments() -> frozenset[str]:
    return frozenset(inspect.signature(DAG).parameters)
