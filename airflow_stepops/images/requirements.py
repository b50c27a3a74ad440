"""The requirements of a step, checked and brought to one list of lines that needs no other file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from airflow_stepops.errors import RequirementsError
from airflow_stepops.images.context import code_file

_INCLUDE = re.compile(r"(-r|--requirement|-c|--constraint)(?:\s+|=|(?=[^-\s]))(?P<file>.+)")
_HASHES = re.compile(r"\s+--hash[= ]\S+")
_COMMENT = re.compile(r"(^|\s)#.*$")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_INDEX_OPTIONS = (
    "--index-url", "-i", "--extra-index-url", "--find-links", "-f", "--no-index", "--pre", "--prefer-binary",
    "--trusted-host", "--only-binary", "--require-hashes",
)  # fmt: skip
_LOCAL = re.compile(r"(\.{1,2}(/|$)|/|~|\\|file:|[A-Za-z]:\\)|.*\.(whl|tar\.gz|zip)$")


def mask(text: str) -> str:
    """Return the text without the credentials in its URLs."""
    return _CREDENTIALS.sub("***@", text)


def read_requirements(given: Sequence[str] | str, dag_file: Path, code_root: Path) -> tuple[str, ...]:
    """Return the lines for the installer.

    :param given: requirements, or the path of a file relative to the folder of the DAG file.
    :raises RequirementsError: naming file and line, for what is no requirement and for local paths.
    :raises ContextError: for a file that is not in the code folder.
    """
    if isinstance(given, str):
        path = code_file(given, dag_file.parent, code_root, f"Image(requirements={given!r})")
        return tuple(_lines_of(path, code_root, []))
    return tuple(line for text in given if (line := _checked(_COMMENT.sub("", text).strip(), "Image(requirements=…)")))


def _lines_of(path: Path, code_root: Path, parents: list[Path]) -> Iterator[str]:
    if path in parents:
        raise RequirementsError(f"{path} includes itself: drop one of its -r lines.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequirementsError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    for number, line in _joined(text):
        where = f"{path}, line {number}"
        line = _COMMENT.sub("", line).strip()
        include = _INCLUDE.fullmatch(line)
        if include is None:
            if line and (checked := _checked(line, where)):
                yield checked
        elif include[1] in ("-c", "--constraint"):
            raise RequirementsError(f"{where}: {line!r}: constraint files are not read. Pin the versions here.")
        else:
            inner = code_file(include["file"].strip(), path.parent, code_root, where)
            yield from _lines_of(inner, code_root, [*parents, path])


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Return lines with their numbers; a line that ends in a backslash goes on in the next."""
    start, held = 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            start, held = (start if held else number), f"{held}{line[:-1]} "
            continue
        yield (start if held else number), held + line
        held = ""
    if held:
        yield start, held


def _checked(line: str, where: str) -> str:
    if not line:
        return line
    if (
        line.startswith(("-e", "--editable"))
        or _LOCAL.match(line.split()[0])
        or "@ file:" in line.replace("@file:", "@ file:")
    ):
        raise RequirementsError(
            f"{where}: {mask(line)!r} is on this machine only. Code of your own goes into the code folder, which is in "
            "every image; other packages must come from an index, by name."
        )
    if line.startswith("-"):
        if re.split(r"[\s=]", line, maxsplit=1)[0] not in _INDEX_OPTIONS:
            raise RequirementsError(
                f"{where}: option {mask(line)!r} does not work here. Allowed: -r FILE, {', '.join(_INDEX_OPTIONS)}."
            )
        return line
    try:
        Requirement(_HASHES.sub("", line))
    except InvalidRequirement as error:
        raise RequirementsError(
            f"{where}: {mask(line)!r} is not a requirement ({str(error).splitlines()[0]}). Write a name and "
            "versions, such as 'pandas>=2.2' or 'torch==2.7.*; platform_machine == \"x86_64\"'."
        ) from error
    return line
