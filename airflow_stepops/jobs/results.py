"""Reading what a job left, on the Airflow side."""

from __future__ import annotations

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import ArtifactNotFoundError, SpecError
from airflow_stepops.runtime.result import JobResult
from airflow_stepops.runtime.spec import Attempt


def read_result(store: ArtifactStore, directory: str, attempt: Attempt) -> tuple[JobResult | None, str]:
    """Return the valid result of an attempt's job, or why there is none.

    :param directory: URI of the folder in which the job leaves it.
    :param attempt: that the job was launched for.
    """
    uri = f"{directory}/result.json"
    try:
        return JobResult.from_json(store.get(uri), attempt).within(store), ""
    except ArtifactNotFoundError:
        return None, f"there is no result at {uri}"
    except SpecError as error:
        return None, f"the result at {uri} is not valid: {error}"
