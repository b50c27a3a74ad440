"""Every error this package raises, and the kinds of end a job can have.

::

    StepopsError
    ├── ConfigurationError          bad input of a person: names the field, the value, what is allowed
    │   ├── StepDefinitionError     a @step or @pipeline that cannot work, found while the DAG is parsed
    │   ├── StackError              stepops.yaml, or a name that is not in it
    │   └── RunNotFoundError        a run, or a step or output of one, that the artifact store does not have
    ├── ImageError                  the image could not be made
    │   ├── ContextError            the user's code: too big, changed while read, escapes its folder
    │   ├── RequirementsError       no wheel for the image's platform, or no solution
    │   ├── BuildEngineError        the docker builder: no engine, or the build failed
    │   └── RegistryError           the registry refused or failed
    │       ├── RegistryAuthError   401 or 403
    │       └── DigestMismatchError bytes that are not what their digest says
    ├── ArtifactError               a value could not be saved or loaded
    │   ├── ArtifactNotFoundError   nothing at that URI
    │   ├── ArtifactExistsError     put-if-absent found something
    │   └── IntegrityError          the bytes are not what the reference says
    ├── SpecError                   a job spec, result or ledger that is not valid
    └── JobError                    the managed service
        ├── TransientServiceError   throttled, 5xx, reset: try again, the job itself is unharmed
        ├── JobNotFoundError        the service does not know the job
        ├── JobRefusedError         the service will not take the request (carries the kind of end)
        └── JobFailedError          the job ended without a valid result (carries the kind of end)
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from enum import Enum
from pathlib import Path


class EndKind(str, Enum):
    """Why an attempt ended without success."""

    USER_CODE = "user_code"
    CAPACITY = "capacity"
    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    INVALID_REQUEST = "invalid_request"
    PERMISSION = "permission"
    IMAGE = "image"
    INFRASTRUCTURE = "infrastructure"
    CANCELLED = "cancelled"
    LOST_RESULT = "lost_result"


class StepopsError(Exception):
    """Base of every error of this package."""


class ConfigurationError(StepopsError, ValueError):
    """Input that a person gave is wrong."""


class StepDefinitionError(ConfigurationError):
    """A step or pipeline that cannot work; raised while the DAG file is parsed."""


class StackError(ConfigurationError):
    """The stack file is wrong, or a name is not in it."""


class RunNotFoundError(ConfigurationError):
    """The artifact store has no such run, or the run no such step or output."""


class ImageError(StepopsError):
    """The image of a step could not be made."""


class ContextError(ImageError):
    """The user's code cannot be packed as it is."""


class RequirementsError(ImageError):
    """The requirements cannot be installed for the image's platform."""


class BuildEngineError(ImageError):
    """The container engine of the docker builder is missing or failed."""


class RegistryError(ImageError):
    """A container registry refused or failed a request."""


class RegistryAuthError(RegistryError):
    """The registry did not accept the credentials."""


class DigestMismatchError(RegistryError):
    """Bytes from or in a registry are not what their digest says."""


class ArtifactError(StepopsError):
    """A value could not be saved to, or loaded from, the artifact store."""


class ArtifactNotFoundError(ArtifactError):
    """There is nothing at that URI."""


class ArtifactExistsError(ArtifactError):
    """A put-if-absent found that the object exists."""


class IntegrityError(ArtifactError):
    """The stored bytes are not what the reference says."""


class SpecError(StepopsError):
    """A job spec, job result or ledger document is not valid."""


class JobError(StepopsError):
    """Something about a job on a managed service."""


class TransientServiceError(JobError):
    """The service failed for now (throttle, 5xx, reset); the job itself is unharmed."""


class JobNotFoundError(JobError):
    """The service does not know this job."""


class JobRefusedError(JobError):
    """The service will not take this request; trying the same again cannot help.

    :param kind: the kind of end this is for the attempt.
    """

    def __init__(self, message: str, kind: EndKind = EndKind.INVALID_REQUEST) -> None:
        super().__init__(message)
        self.kind = kind


class LaunchStoppedError(JobError):
    """The task was killed while it launched its job."""


class JobFailedError(JobError):
    """The job ended without a valid result.

    :param kind: the kind of end.
    """

    def __init__(self, message: str, kind: EndKind) -> None:
        super().__init__(message)
        self.kind = kind


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest allowed name, or ``""``."""
    near = difflib.get_close_matches(value, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def cannot_write(folder: Path, error: OSError) -> str:
    """Return what is wrong with a folder that has to stay on this machine, and what to do."""
    return (
        f"{folder} cannot be written by user {os.geteuid()}: {error.strerror or error}. Set STEPOPS_HOME, or [stepops] "
        "home, to a folder that stays and that this user can write into (or the path of the stack's component, where "
        "it has one)."
    )
