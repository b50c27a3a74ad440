"""What a run was, for people: a table of its steps, and their outputs below."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_stepops.artifacts.reference import ArtifactReference
    from airflow_stepops.client import Run, StepRun

_HEADINGS = ("step", "state", "ran in", "image", "waited", "ran")
_DIGEST_CHARACTERS = 19
_VALUE_CHARACTERS = 120


def summary(run: Run, state: str = "") -> str:
    """Return a table: for each step where it ran, its image, seconds waiting and running; below it what it left.

    :param state: of the run, where more is known of it than its steps tell.
    """
    rows = [_row(step) for step in run.steps]
    widths = [max(len(row[column]) for row in (_HEADINGS, *rows)) for column in range(len(_HEADINGS))]
    folders = _folders(run.steps)
    lines = [_line(_HEADINGS, widths)]
    for step, row in zip(run.steps, rows, strict=True):
        lines += [_line(row, widths), *(f"    {line}" for line in _below(step, folders.get(_root(step), "")))]
    lines += ["", *(f"Outputs are in {folder}" for folder in folders.values() if folder), _uploads(run.steps)]
    return "\n".join([*lines, f"Run {run.run_id} of {run.dag_id}: {state or run.state}"])


def seconds(start: datetime | None, end: datetime | None) -> str:
    """Return a time span for people, ``–`` when it is not known."""
    return "–" if start is None or end is None else f"{max(0.0, (end - start).total_seconds()):.1f} s"


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def kind(reference: ArtifactReference) -> str:
    """Return the type of a value, short for those that every Python has."""
    return reference.type.removeprefix("builtins.")


def _row(step: StepRun) -> tuple[str, ...]:
    state = step.state if step.try_number == 1 else f"{step.state}, try {step.try_number}"
    ran_in = f"{step.where} job" if step.job_name else step.where or "–"
    image = step.image_digest[:_DIGEST_CHARACTERS] or "–"
    waited = seconds(step.submitted_at, step.started_at)
    return step.label, state, ran_in, image, waited, seconds(step.started_at, step.ended_at)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = [cell.ljust(width) for cell, width in zip(cells[:-2], widths, strict=False)]
    numbers = [cell.rjust(max(width, 8)) for cell, width in zip(cells[-2:], widths[-2:], strict=True)]
    return "  ".join((*texts, *numbers)).rstrip()


def _below(step: StepRun, folder: str) -> list[str]:
    lines = [f"{name}: {_output(step, name, folder)}" for name in step.references]
    if step.error is not None:
        lines.append(f"{step.error.type}: {_cut(' '.join(step.error.message.split()))}")
    return lines


def _output(step: StepRun, name: str, folder: str) -> str:
    reference = step.references[name]
    value: Any = step.outputs[name]
    if value is not reference:
        return _cut(repr(value))
    return f"{kind(reference)}, {size(reference.size)}, {reference.uri.removeprefix(folder)}"


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[: _VALUE_CHARACTERS - 1]}…"


def _folders(steps: Sequence[StepRun]) -> dict[str, str]:
    """Return the common folder of the outputs in each artifact store, by the store's root."""
    uris: dict[str, list[str]] = defaultdict(list)
    for step in steps:
        uris[_root(step)] += [reference.uri for reference in step.references.values()]
    return {root: _common_folder(found) for root, found in uris.items()}


def _root(step: StepRun) -> str:
    return step.store.root if step.store else ""


def _common_folder(uris: Sequence[str]) -> str:
    """Return the longest folder that all URIs are in, with its slash, empty when there is none."""
    common = ""
    for parts in zip(*(uri.split("/")[:-1] for uri in uris), strict=False):
        if len(set(parts)) > 1:
            break
        common += f"{parts[0]}/"
    return common


def _uploads(steps: Sequence[StepRun]) -> str:
    # A job that a later attempt went on with is one job.
    jobs = {
        attempt.job_name or attempt.attempt: attempt for step in steps for attempt in step.attempts if attempt.image
    }
    blobs = sum(job.uploaded_blobs for job in jobs.values())
    sent = sum(job.uploaded_bytes for job in jobs.values())
    images = len({job.image for job in jobs.values()})
    plural = "" if images == 1 else "s"
    if not images:
        return "No images"
    if not sent:
        return f"{images} image{plural}, in the registry before the run: nothing uploaded"
    return f"{images} image{plural}; uploaded {blobs} blobs, {size(sent)}"
