"""Which objects of an artifact store a job writes, as patterns for the policies of clouds.

In the patterns of AWS and Azure ``*`` stands for any characters, slashes too, so what keeps a pattern from objects that
it is not meant for is the number of its slashes. An attempt's ``job.json``, ``claim.json`` and ``spec.json`` have seven
below the root. Patterns with more slashes cannot match them, and with seven every ``*`` is within one name of the path,
whatever DAGs, runs and tasks are called. Denying the names instead would also deny the output ``outputs/job.json``.
"""

from __future__ import annotations

#: Folder of a task instance: DAG, run, task, map index and instance.
_INSTANCE = "runs/*/*/*/*/*"
_ATTEMPT = f"{_INSTANCE}/attempt-*"

#: What a job writes. It gives ``…/attempt-1/inputs/result.json`` too, see :data:`INPUTS`.
WRITTEN = (
    f"{_ATTEMPT}/result.json",
    f"{_ATTEMPT}/outputs/*",
    f"{_ATTEMPT}/live/*",
    f"{_INSTANCE}/checkpoints/*",
)

#: What a job deletes.
DELETED = (f"{_INSTANCE}/checkpoints/*",)

#: What only Airflow writes although :data:`WRITTEN` gives one name of it: to be denied.
INPUTS = f"{_ATTEMPT}/inputs/*"


def below(folder: str, pattern: str) -> str:
    """Return the pattern of the objects in a folder whose own name is no pattern.

    :param folder: ``""`` for the top of a container.
    """
    # In names of folders there may also be quotes, which end strings in Azure's conditions. A "?" is any one character.
    literal = folder.replace("*", "?").replace("'", "?")
    return f"{literal}/{pattern}" if literal else pattern
