"""What nobody needs any more in an artifact store: old runs, and values that no result refers to."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import ArtifactNotFoundError

#: Calls at the same time: each costs S3 some 30 ms, whatever its size.
_AT_ONCE = 16

#: Below ``runs/``.
_RUN = re.compile(r"[^/]+/[^/]+(?=/)")
_OUTPUT = re.compile(r"(?P<attempt>.+/attempt-\d+)/outputs/.+")


@dataclass(frozen=True)
class StaleRun:
    """A run into which nothing was written for long.

    :param uri: of its folder.
    :param written_at: Unix time of the last write.
    :param objects: URIs of all that is in it.
    """

    uri: str
    written_at: float
    objects: tuple[str, ...]


@dataclass(frozen=True)
class Waste:
    """What can go.

    :param orphans: URIs of outputs that no result refers to, of runs that stay: a job was killed while it saved them.
    """

    runs: tuple[StaleRun, ...]
    orphans: tuple[str, ...]


def find_waste(store: ArtifactStore, *, runs_before: float, orphans_before: float) -> Waste:
    """Look for what can go.

    :param runs_before: Unix time; runs whose last write is older are stale.
    :param orphans_before: Unix time; younger outputs may belong to a job that is about to write its result.
    :raises ArtifactError: if the store cannot be read.
    """
    root = f"{store.root}/runs"
    runs: dict[str, dict[str, float]] = defaultdict(dict)
    for uri, written_at in store.written(root).items():
        run = _RUN.match(uri, len(root) + 1)
        if run is not None:
            runs[f"{root}/{run[0]}"][uri] = written_at
    stale = [StaleRun(run, max(found.values()), tuple(sorted(found))) for run, found in sorted(runs.items())]
    stale = [run for run in stale if run.written_at < runs_before]
    gone = {run.uri for run in stale}
    kept = {uri: at for run, found in runs.items() if run not in gone for uri, at in found.items()}
    return Waste(tuple(stale), tuple(_orphans(store, kept, orphans_before)))


def delete(store: ArtifactStore, uris: Iterable[str]) -> None:
    """Delete objects; no error for those that are gone already."""
    with ThreadPoolExecutor(_AT_ONCE, "stepops-prune") as threads:
        list(threads.map(store.delete, uris))


def _orphans(store: ArtifactStore, written: Mapping[str, float], before: float) -> list[str]:
    outputs: dict[str, list[str]] = defaultdict(list)
    for uri, written_at in written.items():
        output = _OUTPUT.fullmatch(uri)
        if output is not None and written_at < before:
            outputs[output["attempt"]].append(uri)
    with ThreadPoolExecutor(_AT_ONCE, "stepops-prune") as threads:
        texts = threads.map(lambda attempt: _result(store, attempt), outputs)
        found = zip(outputs.values(), texts, strict=True)
        return sorted(uri for uris, text in found for uri in uris if json.dumps(uri) not in text)


def _result(store: ArtifactStore, attempt: str) -> str:
    """Return the text of an attempt's result: what it names, valid or not, is kept."""
    try:
        return store.get(f"{attempt}/result.json").decode(errors="replace")
    except ArtifactNotFoundError:
        return ""
