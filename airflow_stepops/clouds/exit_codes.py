"""What the end of a process says about the end of its job."""

from __future__ import annotations

import signal

from airflow_stepops.errors import EndKind

#: A shell, an engine and our runtime say by codes above it which signal ended a process.
SIGNALLED = 128

#: Signals that a machine or a person sends. The others (SIGSEGV, SIGABRT …) a program brings upon itself.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def killed_by(number: int) -> tuple[EndKind, str]:
    """Return the kind of end and the reason for a job that a signal ended, when we did not send it."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    hint = ": perhaps it ran out of memory" if number == signal.SIGKILL else ""
    kind = EndKind.INFRASTRUCTURE if number in _FROM_OUTSIDE else EndKind.USER_CODE
    return kind, f"killed by signal {number} ({name}){hint}"
