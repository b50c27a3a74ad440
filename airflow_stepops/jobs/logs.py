"""Reading a job's log, and following it while the job runs."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from airflow_stepops.jobs.known_job import describe
from airflow_stepops.jobs.patience import patiently
from airflow_stepops.jobs.protocol import JobService
from airflow_stepops.jobs.threads import in_thread

#: Airflow takes about 0.3 ms for a line of a trigger's log; this many do not hold up the other triggers.
_CHUNK = 200
_TAIL = 20
#: After the end of a job, what is left of its log is fetched for at most so many seconds: a busy triggerer takes
#: minutes for a hundred thousand lines.
_DRAIN_SECONDS = 300.0
_FAILURES_AFTER_END = 3


def log_lines(service: JobService, job_id: str, *, follow: bool = False) -> Iterator[str]:
    """Yield the lines of a job's log.

    :param follow: wait for further lines until the job has ended.
    :raises JobNotFoundError: if the service does not know the job.
    :raises TransientServiceError: when the service could not be reached for minutes.
    """
    cursor = ""
    while True:
        # Asked before the log is read: nothing is written after the end.
        last = not follow or describe(service, job_id).state.ended
        more = True
        while more:
            chunk = patiently(service.logs)(job_id, cursor)
            yield from chunk.lines
            cursor, more = chunk.cursor, chunk.more
        if last:
            return
        time.sleep(service.poll_seconds)


class LogFollower:
    """Hands the lines of one job's log on, in order, each once.

    :param emit: called with each line, in the event loop.
    """

    def __init__(self, service: JobService, job_id: str, emit: Callable[[str], None]) -> None:
        self._service = service
        self._job_id = job_id
        self._emit = emit
        self._cursor = ""
        self._ended = asyncio.Event()
        self.tail: deque[str] = deque(maxlen=_TAIL)

    async def follow(self) -> None:
        """Follow until :meth:`finish` is called or the task is cancelled."""
        while not self._ended.is_set():
            try:
                more = await self._step()
            except Exception:  # noqa: BLE001 - a log that cannot be read for now says nothing of the job
                more = False
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), self._service.poll_seconds)

    async def finish(self, following: asyncio.Task[None]) -> None:
        """Fetch what is left after the job's end; a log that stays unreadable is said, and is not an error.

        :param following: the task that runs :meth:`follow`.
        """
        self._ended.set()
        await following
        failures = 0
        problem: object = f"there is more than could be read in {_DRAIN_SECONDS:.0f} s"
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while failures < _FAILURES_AFTER_END:
                    try:
                        if not await self._step():
                            return
                    except Exception as error:  # noqa: BLE001 - see follow()
                        failures += 1
                        problem = error
                        await asyncio.sleep(min(1.0, self._service.poll_seconds))
        self._emit(f"the log of the job is not complete here: {problem}")

    async def _step(self) -> bool:
        chunk = await in_thread(self._service.logs, self._job_id, self._cursor, _CHUNK)
        for line in chunk.lines:
            self._emit(line)
            self.tail.append(line)
        self._cursor = chunk.cursor
        return chunk.more
