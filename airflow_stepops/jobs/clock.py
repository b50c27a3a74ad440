"""The time as a service tells it: the clocks of workers and triggerers may be minutes off."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime


class ServiceClock:
    """The clock of a service, read from the ``Date`` header of its answers (RFC 9110, 6.6.1).

    It is late by a second at most, and by the time that the answer took. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._read: tuple[float, float] | None = None

    def read(self, date: str | None) -> None:
        """Set the clock by an answer that has just come.

        :param date: value of the header; one that is missing or no date sets nothing.
        """
        try:
            self._read = parsedate_to_datetime(date or "").timestamp(), time.monotonic()
        except ValueError:
            return

    def now(self) -> float:
        """Return the service's Unix time; this machine's before the first answer."""
        if self._read is None:
            return time.time()
        told, at = self._read
        return told + time.monotonic() - at
