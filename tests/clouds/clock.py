"""The clock of an emulated cloud."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from werkzeug.serving import WSGIRequestHandler


class Clock:
    """A clock that may be set.

    :ivar ahead: seconds by which it is ahead of this machine's.
    """

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def request_handler(self) -> type[WSGIRequestHandler]:
        """Return what makes a server's answers have this time in their ``Date`` header."""
        clock = self

        class Handler(WSGIRequestHandler):
            def date_time_string(self, timestamp: float | None = None) -> str:
                return format_datetime(clock.now(), usegmt=True)

        return Handler
