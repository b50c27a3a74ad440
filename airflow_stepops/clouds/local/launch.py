"""Making a local job's folder: what its process needs, from the layers of its image."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from airflow_stepops import home_folders
from airflow_stepops.clouds.local.job_folder import JobFolder
from airflow_stepops.errors import EndKind, JobRefusedError
from airflow_stepops.images.manifests import Manifest, read_config
from airflow_stepops.images.registry.repository import ImageRepository
from airflow_stepops.images.unpack import UnpackedLayers, unpack_layers
from airflow_stepops.jobs.protocol import JobRequest
from airflow_stepops.runtime.spec import COMMAND, SPEC_VARIABLE

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def make_folder(folder: JobFolder, request: JobRequest) -> None:
    """Make the folder of a job, whole or not at all; no error when somebody else has made it.

    :raises JobRefusedError: if the image cannot run on this machine.
    :raises ImageError: if the image cannot be read.
    :raises ConfigurationError: if the folder of jobs cannot be written.
    """
    home_folders.make_folder(folder.path.parent)
    layers = _layers(request)
    new = Path(tempfile.mkdtemp(prefix=f".{request.name}-", dir=folder.path.parent))
    try:
        scratch = new / folder.scratch.name
        # The step may write where it is; the unpacked layers are shared, so it gets its own copy of the code.
        shutil.copytree(layers.code, scratch / "code", symlinks=True)
        for name in ("home", "tmp"):
            (scratch / name).mkdir()
        (new / "request.json").write_text(json.dumps(_document(folder, layers, request)))
        new.chmod(0o755)
        new.rename(folder.path)
    except OSError:
        if not folder.path.exists():
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _layers(request: JobRequest) -> UnpackedLayers:
    if request.repository is None:
        raise JobRefusedError("a local job reads its image from the stack's container registry, and none was given.")
    layers = unpack_layers(request.repository, request.image, home_folders.cache_folder() / "layers")
    _check_machine(request.repository, request.image)
    return layers


def _check_machine(repository: ImageRepository, image: str) -> None:
    """Refuse an image whose compiled packages are for another machine or Python."""
    media_type, data = repository.get_manifest(image.rpartition("@")[2])
    config = read_config(repository.get_document(Manifest.read(media_type, data, image).config), image)
    variables = dict(entry.partition("=")[::2] for entry in (config.get("config") or {}).get("Env") or [])
    python = ".".join(variables.get("PYTHON_VERSION", _PYTHON).split(".")[:2])
    system = platform.system().lower()
    if python != _PYTHON or config.get("os", system) != system:
        raise JobRefusedError(
            f"image {image} is for Python {python} on {config.get('os')}, and the local step operator runs this "
            f"machine's Python {_PYTHON} on {system}: let the image be built for it (no Image(uri=…)), or use the "
            "docker step operator.",
            EndKind.IMAGE,
        )


def _document(folder: JobFolder, layers: UnpackedLayers, request: JobRequest) -> dict[str, Any]:
    scratch = folder.scratch
    bytecode = home_folders.cache_folder() / "bytecode"
    return {
        "created_at": time.time(),
        "attempt": dataclasses.asdict(request.attempt),
        "image": request.image,
        "note": f"{', '.join(request.resources)} not enforced on this machine" if request.resources else "",
        "command": [getattr(sys, "_base_executable", sys.executable), "-S", *COMMAND[1:]],
        "cwd": str(scratch / "code"),
        "environment": {
            "PATH": f"{layers.requirements}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(scratch / "home"),
            "TMPDIR": str(scratch / "tmp"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{scratch / 'code'}:{layers.requirements}:{layers.runtime}",
            "PYTHONPYCACHEPREFIX": str(bytecode),
            "PYTHONUNBUFFERED": "1",
            **request.environment,
            SPEC_VARIABLE: request.spec_uri,
        },
        "secret_names": [
            reference.removeprefix("env:") for reference in request.secrets.values() if reference.startswith("env:")
        ],
        "timeout": request.timeout,
        "locks": [str(lock) for lock in layers.locks],
        # The copy of the code, and what Python compiled of it.
        "discard": [str(scratch), str(bytecode / folder.path.relative_to("/"))],
    }
