"""What a step is called with, beside what the DAG gives it: Airflow's context, and Airflow's wrapped values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_stepops.artifacts.reference import ArtifactReference
from airflow_stepops.errors import StepDefinitionError
from airflow_stepops.runtime.spec import encode_value

if TYPE_CHECKING:
    from airflow_stepops.artifacts.store import ArtifactStore


def from_context(
    function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any], context: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the context variables that the function asks for by parameter name, as TaskFlow does."""
    signature = inspect.signature(function)
    given = signature.bind_partial(*args, **kwargs).arguments
    return {name: context[name] for name in signature.parameters if name not in given and name in context}


def check_json(values: Mapping[str, Any], task_id: str) -> None:
    """Check context variables that a job asks for: it can be given plain JSON values only.

    :raises StepDefinitionError: naming the variable.
    """
    for name, value in values.items():
        try:
            encode_value(value)
        except TypeError as error:
            raise StepDefinitionError(
                f"Step {task_id!r} asks for the context variable {name!r}, which is a {error} and exists "
                "only in Airflow: give the step an argument with a templated string, such as '{{ ds }}', instead."
            ) from None


def plain(value: Any) -> Any:
    """Turn Airflow's lazy sequences (outputs of mapped tasks) and params into plain lists and dicts."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, list, tuple)):
        return list(value)
    return value.dump() if type(value).__name__ == "ParamsDict" else value


def brought(value: Any, store: ArtifactStore, directory: str) -> Any:
    """Return an argument whose artifacts are all in the store of the step's stack: those of others are copied there.

    A job reads nothing but its own store, and has credentials for no other.

    :param directory: URI of the attempt's folder.
    """
    if isinstance(value, ArtifactReference):
        if value.uri.startswith(f"{store.root}/"):
            return value
        from airflow_stepops.artifacts.values import copied

        return copied(value, store, f"{directory}/inputs/of-another-stack")
    if isinstance(value, Mapping):
        return {key: brought(item, store, directory) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(brought(item, store, directory) for item in value)
    return value
