"""What an engine's error means for a job."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from docker.errors import APIError, NotFound
from requests.exceptions import RequestException

from airflow_stepops.errors import EndKind, JobRefusedError, TransientServiceError

_NO_COMMAND = re.compile(r"executable file not found|no such file or directory|permission denied", re.IGNORECASE)
_RUNTIME = re.compile(r"oci runtime|runc|crun|no such|not found|invalid|conflict|unsupported", re.IGNORECASE)
_DENIED = re.compile(r"unauthorized|denied|forbidden|authentication required|no basic auth", re.IGNORECASE)
_NO_IMAGE = re.compile(r"manifest unknown|not found|no such image|name unknown|invalid reference", re.IGNORECASE)
_PLAIN_HTTP = "server gave HTTP response"


@contextmanager
def passing() -> Iterator[None]:
    """Turn what an engine raises into the error for what may pass by itself."""
    try:
        yield
    except (APIError, RequestException, OSError) as error:
        raise TransientServiceError(f"the container engine failed: {explanation(error)}") from error


def pull_error(image: str, said: str) -> Exception:
    """Return the error for an image that the engine does not get."""
    if _DENIED.search(said):
        advice = "give the stack's container registry a connection with a login that may read it"
        return JobRefusedError(f"the engine may not pull {image}: {said}; {advice}.", EndKind.PERMISSION)
    if _PLAIN_HTTP in said:
        advice = "add the registry to the insecure registries of the engine"
        return JobRefusedError(f"the engine cannot pull {image}: {said}; {advice}.", EndKind.IMAGE)
    if _NO_IMAGE.search(said):
        return JobRefusedError(f"the engine cannot pull {image}: {said}", EndKind.IMAGE)
    return TransientServiceError(f"the engine could not pull {image}: {said}")


def start_error(error: APIError) -> Exception:
    """Return the error for a container that does not start."""
    said = explanation(error)
    if isinstance(error, NotFound):
        return JobRefusedError("the container was removed while it was being started", EndKind.CANCELLED)
    if _NO_COMMAND.search(said):
        return JobRefusedError(f"the image cannot run python: {said}", EndKind.IMAGE)
    if error.status_code == 400 or _RUNTIME.search(said):
        return JobRefusedError(f"the engine cannot start the container: {said}")
    return TransientServiceError(f"the engine could not start the container: {said}")


def create_error(error: Exception) -> Exception:
    """Return the error for a container that is not created."""
    said = explanation(error)
    if isinstance(error, TypeError) or _RUNTIME.search(said) or getattr(error, "status_code", None) in (400, 404):
        return JobRefusedError(f"the engine refuses the container: {said}")
    return TransientServiceError(f"the engine could not create the container: {said}")


def explanation(error: Exception) -> str:
    """Return what an engine said, as one line."""
    return " ".join(str(getattr(error, "explanation", None) or error).split())
