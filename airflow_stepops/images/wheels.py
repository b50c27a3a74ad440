"""Python packages for the image's platform, resolved and unpacked by uv, as a reproducible layer."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from airflow_stepops.errors import RequirementsError
from airflow_stepops.images.cache_folder import CacheFolder
from airflow_stepops.images.layers import Entry
from airflow_stepops.images.plan import Machine
from airflow_stepops.images.requirements import mask

_UV_PLATFORMS = {"linux/amd64": "x86_64-manylinux_2_28", "linux/arm64": "aarch64-manylinux_2_28"}
_NO_WHEEL = re.compile(r"no (usable )?wheels|building source distributions|no-build|only-binary", re.IGNORECASE)
# Written by uv for a long interpreter path: a shell script that Python reads as a string.
_SHELL_SHEBANG = re.compile(rb"\A#!/bin/sh\n'''exec' [^\n]*\n' '''\n")
_SHEBANG = re.compile(rb"\A#![^\n]*python[^\n]*\n")
_PORTABLE_SHEBANG = b"#!/usr/bin/env python\n"


def uv_version() -> str:
    """Return the release of uv that :func:`install` runs."""
    return importlib.metadata.version("uv")


def install(
    lines: Sequence[str],
    machine: Machine,
    into: Path,
    *,
    directory: Path,
    wheels: CacheFolder,
    dependencies: bool = True,
) -> None:
    """Install requirements into a folder, from wheels alone.

    :param into: the folder; the file of requirements is written beside it.
    :param directory: where uv looks for the user's ``uv.toml`` from.
    :param wheels: where uv keeps what it downloads, unless a person has chosen another place.
    :param dependencies: whether to install what the requirements require.
    :raises RequirementsError: with uv's own reason, and what to do when a package has no wheel.
    """
    file = into.with_name("requirements.txt")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    arguments = ["pip", "install", "--target", str(into), "--python", sys.executable]
    if not machine.here:
        if machine.platform not in _UV_PLATFORMS:
            raise RequirementsError(
                f"there is no image for platform {machine.platform!r}: set Image(platform=…) to one of "
                f"{', '.join(_UV_PLATFORMS)}."
            )
        arguments += ["--python-version", machine.python, "--python-platform", _UV_PLATFORMS[machine.platform]]
    arguments += ["--only-binary", ":all:", "--no-compile", "--no-progress", "--color", "never", "-r", str(file)]
    arguments += [] if dependencies else ["--no-deps"]
    if _has_cache(directory):
        done = _uv(arguments, directory)
    else:
        with wheels.using("wheels") as folder:
            done = _uv([*arguments, "--cache-dir", str(folder)], directory)
        wheels.clean()
    if done.returncode:
        raise _failure(lines, machine, done.stderr.replace(str(file), "requirements"))


def _has_cache(directory: Path) -> bool:
    """Whether a person has chosen where uv's cache is, or that there is none, in variables or ``uv.toml``.

    It is shared with whatever else runs uv then, so it is not ours to clean.
    """
    if os.environ.get("UV_CACHE_DIR"):
        return True
    chosen, usual = (_uv(["cache", "dir", *options], directory).stdout for options in ((), ("--no-config",)))
    return chosen != usual


def _uv(arguments: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    import uv

    command = [uv.find_uv_bin(), *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, errors="replace", check=False)


def _failure(lines: Sequence[str], machine: Machine, said: str) -> RequirementsError:
    advice = "Check names and versions, and the index settings of uv (UV_INDEX_URL, uv.toml) on this worker."
    if _NO_WHEEL.search(said):
        advice = (
            "Packages are installed from wheels only. For one that has no wheel, build the base with the docker "
            "builder (Image(dockerfile=…) or Image(apt_packages=…)), or bring a finished image with Image(uri=…)."
        )
    what = ", ".join(mask(line) for line in lines if not line.startswith("-"))
    return RequirementsError(
        f"the requirements ({what}) cannot be installed for {machine.platform}, Python {machine.python}:\n"
        f"{mask(said).strip()}\n{advice}"
    )


def entries_below(folder: Path, place: str) -> list[Entry]:
    """Return what uv installed as entries of a layer, with nothing of this machine in them.

    :param place: folder in the image.
    """
    portable = _portable_scripts(folder)
    entries = []
    for directory, folders, files in os.walk(folder):
        if "__pycache__" in folders:
            folders.remove("__pycache__")
        for name in files:
            path = os.path.join(directory, name)  # noqa: PTH118 - thousands of files, and a Path each costs
            inner = path[len(str(folder)) + 1 :]
            if inner == ".lock":
                continue
            status = os.stat(path)  # noqa: PTH116
            data = portable.get(inner)
            executable = bool(status.st_mode & 0o100)
            entry = Entry(f"{place}/{inner}", Path(path), status.st_size, executable)
            entries.append(entry if data is None else Entry(entry.name, data, len(data), executable))
    return entries


def _portable_scripts(folder: Path) -> dict[str, bytes]:
    """Return scripts without the path of this machine's interpreter, and the RECORD files that list them."""
    changed: dict[str, bytes] = {}
    for script in sorted((folder / "bin").glob("*")):
        data = script.read_bytes() if script.is_file() else b""
        portable = _SHEBANG.sub(_PORTABLE_SHEBANG, _SHELL_SHEBANG.sub(_PORTABLE_SHEBANG, data), count=1)
        if portable != data:
            changed[f"bin/{script.name}"] = portable
    scripts = dict(changed)
    for record in folder.glob("*.dist-info/RECORD") if scripts else []:
        text = record.read_text(encoding="utf-8")
        rewritten = _rewritten_record(text, scripts)
        if rewritten != text:
            changed[record.relative_to(folder).as_posix()] = rewritten.encode()
    return changed


def _rewritten_record(text: str, scripts: dict[str, bytes]) -> str:
    rows = list(csv.reader(io.StringIO(text)))
    names = {row[0]: re.sub(r"^(\.\./)+", "", row[0]) for row in rows if row}
    if not set(names.values()) & set(scripts):
        return text
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        data = scripts.get(names[row[0]]) if row else None
        if data is not None:
            hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            row = [row[0], f"sha256={hashed}", str(len(data))]
        writer.writerow(row)
    return out.getvalue()
