"""Conditions in IAM's language for the objects that a job writes.

On the name of an object the language has ``startsWith``, ``endsWith`` and ``extract``, which returns what is between
the first occurrence of a text and the first occurrence of another after it, ``""`` if there is nothing: "Attribute
reference for IAM Conditions". There are no patterns, and nothing counts slashes. The conditions never hold for an
attempt's ``job.json``, ``claim.json``, ``spec.json`` and inputs, whatever DAGs, runs and tasks are called. They hold
for all that jobs write, except where names look like parts of the layout: the page "Vertex AI from zero" says which.

A condition has at most twelve logical operators ("Quotas and limits" of IAM), so there are several.
"""

from __future__ import annotations

#: An attempt's folder is the only one with such a name, and its number is not empty.
_ONE_ATTEMPT = (
    'resource.name.extract("/attempt-{number}/") != "" && resource.name.extract("/attempt-{number}/attempt-") == ""'
)


def conditions(start: str) -> dict[str, str]:
    """Return the conditions of which one has to hold: title → expression.

    :param start: of the names of all objects in the artifact store, with a slash at its end.
    """
    return {
        "results and outputs of jobs": _below(start, _result(), *_objects_in("outputs")),
        "live data of jobs": _below(start, *_objects_in("live")),
        "checkpoints of jobs": _below(start, _checkpoint()),
    }


def _below(start: str, *choices: str) -> str:
    either = " || ".join(f"({choice})" for choice in choices)
    return f'resource.name.startsWith("{start}runs/") && ({either})'


def _result() -> str:
    # Ledgers end differently. An input may be called result.
    return 'resource.name.endsWith("/result.json") && !resource.name.endsWith("/inputs/result.json")'


def _objects_in(folder: str) -> tuple[str, str]:
    """Return two ways in which an object may be seen to be in a folder of an attempt."""
    # After the first folder of this name there is one name: of a ledger and of an input, the folder has another.
    last = f'resource.name.extract("/{folder}/{{name}}") != "" && resource.name.extract("/{folder}/{{name}}/") == ""'
    # Also where a DAG, run or task has the name: the folder comes at once after the only one of an attempt.
    number = 'resource.name.extract("/attempt-{number}/")'
    next_to = f'{number} == resource.name.extract("/attempt-{{number}}/{folder}/")'
    return last, f"{next_to} && {_ONE_ATTEMPT}"


def _checkpoint() -> str:
    """Return that the folder of the only attempt is in that of a machine.

    That of a ledger or an input is not: the folder before the last one is there called by the map index, a number.
    """
    rank = 'resource.name.extract("/checkpoints/machine-{rank}/")'
    next_to = f'{rank} == resource.name.extract("/checkpoints/machine-{{rank}}/attempt-")'
    return f'{rank} != "" && {next_to} && {_ONE_ATTEMPT}'
