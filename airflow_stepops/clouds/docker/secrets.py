"""Secrets of a container: files under ``/run/secrets``, which are in no request, environment or label."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping

from airflow_stepops.errors import ConfigurationError

_SCHEME = "env:"


def secrets_archive(references: Mapping[str, str]) -> bytes:
    """Return a tar with a file for each variable of this machine that a reference names.

    :param references: variable → reference; only ``env:NAME`` is delivered, the others the job finds itself.
    :raises ConfigurationError: naming a variable that is not set here.
    """
    names = {reference.removeprefix(_SCHEME) for reference in references.values() if reference.startswith(_SCHEME)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo("secrets")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name in sorted(names):
            if name not in os.environ:
                raise ConfigurationError(f"secret 'env:{name}': the variable is not set where the step is launched.")
            value = os.environ[name].encode()
            member = tarfile.TarInfo(f"secrets/{name}")
            member.size, member.mode = len(value), 0o444
            tar.addfile(member, io.BytesIO(value))
    return buffer.getvalue()
