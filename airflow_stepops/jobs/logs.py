"""Following a job's log while it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from airflow_stepops.errors import JobError
from airflow_stepops.jobs.protocol import JobService

#: Airflow takes about 0.3 ms for a line of a trigger's log; this many do not hold up the other triggers.
_CHUNK = 200
_TAIL = 20
#: After the end of a job, what is left of its log is fetched for at most so many seconds.
_DRAIN_SECONDS = 120.0
_FAILURES_AFTER_END = 3


class LogFollower:
    """Hands the lines of one job's log on, in order, each once.

    :param emit: called with each line, in the event loop.
    """

    def __init__(self, service: JobService, job_id: str, emit: Callable[[str], None]) -> None:
        self._service = service
        self._job_id = job_id
        self._emit = emit
        self._cursor = ""
        self.tail: deque[str] = deque(maxlen=_TAIL)

    async def follow(self) -> None:
        """Follow until cancelled. A log that cannot be read for now is tried again."""
        while True:
            try:
                more = await self._step()
            except JobError:
                more = False
            if not more:
                await asyncio.sleep(self._service.poll_seconds)

    async def drain(self) -> None:
        """Fetch what is left after the job's end; a log that stays unreadable is said, not an error."""
        failures = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while failures < _FAILURES_AFTER_END:
                    try:
                        if not await self._step():
                            return
                    except JobError as error:
                        failures += 1
                        problem: object = error
                        await asyncio.sleep(min(1.0, self._service.poll_seconds))
        except TimeoutError:
            problem = f"there is more than could be read in {_DRAIN_SECONDS:.0f} s"
        self._emit(f"the log of the job is not complete here: {problem}")

    async def _step(self) -> bool:
        chunk = await asyncio.to_thread(self._service.logs, self._job_id, self._cursor, _CHUNK)
        for line in chunk.lines:
            self._emit(line)
            self.tail.append(line)
        self._cursor = chunk.cursor
        return chunk.more
