"""Secrets of a container: files under ``/run/secrets``, which are in no request, environment or label."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

_FOLDERS = ("run", "run/secrets")


def secrets_archive(values: Mapping[str, str]) -> bytes:
    """Return a tar, to be unpacked at the root, with a file for each secret.

    :param values: secrets by the name of their file.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in _FOLDERS:
            folder = tarfile.TarInfo(path)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, value in sorted(values.items()):
            data = value.encode()
            member = tarfile.TarInfo(f"{_FOLDERS[-1]}/{name}")
            # Whatever user the image runs as.
            member.size, member.mode = len(data), 0o444
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
