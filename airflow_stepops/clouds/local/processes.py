"""Processes of a job that nobody looks after any more."""

from __future__ import annotations

from contextlib import suppress

from airflow_stepops.runtime.spec import SPEC_VARIABLE


def kill_processes_of(spec_uri: str) -> None:
    """Kill every process that runs for a job spec, wherever its supervisor has gone.

    They are known by their environment, which a process hands on to those that it starts: a number may meanwhile be
    another process's, as after a restart of the machine.
    """
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(SPEC_VARIABLE) == spec_uri:
                process.kill()
