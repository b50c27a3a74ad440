"""``stepops prune``: delete what nobody needs any more."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_stepops import settings
from airflow_stepops.cli import place
from airflow_stepops.cli.output import json_option, print_json, print_table
from airflow_stepops.errors import JobError
from airflow_stepops.options import duration_seconds

if TYPE_CHECKING:
    from airflow_stepops.jobs.runs import StepRun
    from airflow_stepops.stacks.models import Stack

#: Outputs are saved within hours, even large ones, and a result follows at once.
_DAY = 24 * 3600


@click.command("prune", help="Show old runs, orphaned artifacts and unused caches; --yes deletes them.")
@click.option("--older-than", default="30d", show_default=True, help="Of runs and caches; at least 1d.")
@click.option("--stack", help="Whose artifact store to look into; default: the active one.")
@click.option("--orphans", is_flag=True, help="Also jobs that run and whose tasks have ended; --yes stops them.")
@click.option("--yes", is_flag=True, help="Delete what is shown.")
@json_option
def prune(older_than: str, stack: str | None, orphans: bool, yes: bool, as_json: bool) -> None:
    """Delete, or show what would be deleted."""
    from airflow_stepops.jobs.pruning import delete, find_waste

    seconds = duration_seconds(older_than, "--older-than")
    if seconds < _DAY:
        raise click.BadParameter(f"{older_than!r}: give at least 1d.", param_hint="--older-than")
    now = time.time()
    chosen = place.to_read().stack(stack)
    store = chosen.artifact_store.open()
    waste = find_waste(store, runs_before=now - seconds, orphans_before=now - _DAY)
    unused = list(_unused(now - seconds, chosen.container_registry.local_folder()))
    jobs = _orphans(chosen, now) if orphans else []
    rows: list[dict[str, Any]] = [
        *({"what": "orphaned job", "place": f"{job.step_operator}: {job.job_name}"} for job in jobs),
        *(
            {"what": "run", "place": run.uri, "objects": len(run.objects), "written": run.written_at}
            for run in waste.runs
        ),
        *({"what": "orphaned artifact", "place": uri, "objects": 1} for uri in waste.orphans),
        *({"what": found.what, "place": str(found.path), "written": found.written_at} for found in unused),
    ]
    if yes:
        _stop(chosen, jobs)
        delete(store, [uri for run in waste.runs for uri in run.objects])
        delete(store, waste.orphans)
        for found in unused:
            if not found.delete():
                click.echo(f"{found.path} stays: it is in use, or another user's.", err=True)
    if as_json:
        print_json({"deleted": yes, "found": rows})
        return
    print_table(
        ("WHAT", "LAST WRITTEN", "OBJECTS", "WHERE"),
        [(row["what"], _day(row.get("written")), row.get("objects"), row["place"]) for row in rows],
    )
    click.echo(("Deleted." if yes else "Nothing is deleted without --yes.") if rows else "There is nothing to delete.")


def _orphans(stack: Stack, now: float) -> list[StepRun]:
    """Return the jobs that nobody waits for, as Airflow's database has it."""
    from airflow_stepops.jobs.orphans import find_orphans

    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    return find_orphans(stack, _is_over_in_database, now)


def _is_over_in_database(step: StepRun) -> bool:
    from uuid import UUID

    from airflow.models.dag_version import DagVersion
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskinstancehistory import TaskInstanceHistory
    from airflow.utils.session import create_session

    from airflow_stepops.jobs.orphans import OVER

    names = {name: getattr(step, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
    ids = {attempt.attempt.ti_id for attempt in step.attempts}
    with create_session() as session:
        now = session.query(TaskInstance.id, TaskInstance.state).filter_by(**names).one_or_none()
        before = session.query(TaskInstanceHistory.task_instance_id).filter_by(**names).all()
        if now is not None and ids & {str(now.id), *(str(row.task_instance_id) for row in before)}:
            return str(now.state) in OVER
        # No two databases have the same id: the job is of this Airflow, and its run was deleted.
        version = step.entry.dag_version if step.entry else ""
        return bool(version) and session.get(DagVersion, UUID(version)) is not None


def _stop(stack: Stack, jobs: list[StepRun]) -> None:
    from airflow_stepops.jobs.orphans import stop_orphans

    for stopped in stop_orphans(stack, jobs):
        if stopped.failed:
            raise JobError(f"job {stopped.step.job_name} {stopped.said}")


@dataclass(frozen=True)
class _Unused:
    """Something on this machine that nobody needs.

    :param written_at: Unix time of its last use, as far as that is known.
    :param delete: returns whether it is gone.
    """

    what: str
    path: Path
    written_at: float
    delete: Callable[[], bool]


def _unused(before: float, images: Path | None) -> Iterator[_Unused]:
    """Yield what this machine keeps and has not used since, and what killed processes left.

    :param images: folder of the stack's container registry, if it is one.
    """
    from airflow_stepops.images.cache import ImageCache
    from airflow_stepops.images.cache_folder import CacheFolder, discard
    from airflow_stepops.images.registry.layout import LayoutRepository

    folders = ImageCache().folders()
    home = settings.find_home()
    if home is not None:
        folders["log"] = CacheFolder(home / "local-runs")
    for what, folder in folders.items():
        for kept in folder.unused(before):
            yield _Unused(what, kept.paths[0], kept.used_at, partial(folder.delete, kept))
    for path in LayoutRepository(images).leftovers() if images is not None else ():
        yield _Unused("unfinished blob", path, path.lstat().st_mtime, partial(discard, path))


def _day(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d", time.localtime(seconds))
