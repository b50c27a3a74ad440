"""The Dockerfile of a base, and which files of the code folder it can see."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import PathSpec

from airflow_stepops.errors import ImageError
from airflow_stepops.images.cache import key_of
from airflow_stepops.images.context import Context, code_file
from airflow_stepops.images.layers import Entry

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+~:-]+)?")
_REMOTE = re.compile(r"(https?|git|ssh)://|git@")


@dataclass(frozen=True)
class BaseRecipe:
    """How an engine is to build a base.

    :param dockerfile: its text.
    :param files: the files that it copies: a change of any other file does not build the base anew.
    """

    dockerfile: str
    files: tuple[Entry, ...]
    platform: str

    @property
    def tag(self) -> str:
        """Name of the base in its repository: a function of everything that goes into it."""
        facts = [(entry.name, entry.executable, entry.sha256, entry.link) for entry in self.files]
        return f"stepops-base-{key_of(self.dockerfile, facts, self.platform)[:32]}"


def recipe_from_dockerfile(
    given: str, packages: Sequence[str], platform: str, context: Context, dag_file: Path
) -> BaseRecipe:
    """Return the recipe of the user's Dockerfile, with the code folder as its context.

    :param given: its path, relative to the folder of the DAG file.
    :param packages: Debian packages to install after it.
    :raises ContextError: if there is no such file in the code folder.
    """
    path = code_file(given, dag_file.parent, context.root, f"Image(dockerfile={given!r})")
    text = path.read_text(encoding="utf-8")
    sources = copied_sources(text)
    if sources is None:
        files = context.entries
    else:
        spec = PathSpec.from_lines("gitwildmatch", [f"/{source}" for source in sources])
        files = tuple(entry for entry in context.entries if spec.match_file(entry.name))
    return BaseRecipe("\n".join([text, *_install(packages)]), files, platform)


def recipe_from_packages(base: str, packages: Sequence[str], platform: str) -> BaseRecipe:
    """Return the recipe of a base with Debian packages added.

    :param base: its pinned reference.
    :raises ImageError: for a text that is not the name of a package.
    """
    return BaseRecipe("\n".join([f"FROM {base}", *_install(packages)]), (), platform)


def _install(packages: Sequence[str]) -> list[str]:
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise ImageError(
                f"Image(apt_packages=…): {package!r} is not a Debian package. Write 'libgomp1' or "
                "'git=1:2.39.5-0+deb12u1'."
            )
    if not packages:
        return []
    names = " ".join(sorted(packages))
    return [
        "RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "
        f"{names} && rm -rf /var/lib/apt/lists/*",
        "",
    ]


def copied_sources(dockerfile: str) -> set[str] | None:
    """Return what a Dockerfile copies out of its context, ``None`` when that cannot be told: it may be everything."""
    sources: set[str] = set()
    for instruction in _instructions(dockerfile):
        verb, _, rest = instruction.partition(" ")
        verb, rest = verb.upper(), rest.strip()
        if verb == "ONBUILD":
            return None
        if verb == "RUN" and re.search(r"--mount=(?!\S*type=(cache|secret|ssh|tmpfs))(?!\S*from=)", rest):
            return None
        if verb not in ("COPY", "ADD") or re.search(r"(^|\s)--from=", rest):
            continue
        named = _sources(rest)
        if named is None:
            return None
        sources |= named
    return sources


def _sources(arguments: str) -> set[str] | None:
    text = re.sub(r"^(--\S+\s+)+", "", arguments)
    try:
        words = json.loads(text) if text.startswith("[") else shlex.split(text)
    except ValueError:
        return None
    named = {re.sub(r"^(\./|/)+", "", str(word)).rstrip("/") for word in words[:-1] if not _REMOTE.match(str(word))}
    unclear = any(word in ("", ".") or re.search(r"\$|<<|\.\.", word) for word in named)
    return None if unclear else named


def _instructions(dockerfile: str) -> Iterator[str]:
    """Return instructions, each in one line."""
    held = ""
    for line in dockerfile.splitlines():
        text = line.strip()
        if text.startswith("#") or not text:
            continue
        if text.endswith("\\"):
            held += text[:-1] + " "
            continue
        yield held + text
        held = ""
    if held:
        yield held.strip()
