"""How long to go on with a registry that fails for now."""

from __future__ import annotations

import random
import time

from airflow_stepops.errors import RegistryError

_TRIES = 6
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 20.0
_LONGEST_RETRY_AFTER = 120.0


class Interrupted(Exception):
    """A request that may work when it is made again.

    :param failure: what to raise when patience is at its end.
    :param retry_after: seconds that the registry asked for.
    """

    def __init__(self, failure: RegistryError, retry_after: float = 0.0) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.retry_after = retry_after


class Patience:
    """Counts the tries of one piece of work and waits between them, longer each time and never in step with others."""

    def __init__(self) -> None:
        self._failures = 0

    def wait(self, interruption: Interrupted) -> None:
        """Wait before the next try.

        :raises RegistryError: when there were enough.
        """
        self._failures += 1
        if self._failures >= _TRIES or interruption.retry_after > _LONGEST_RETRY_AFTER:
            raise interruption.failure from interruption
        pause = min(_FIRST_PAUSE * 2 ** (self._failures - 1), _LONGEST_PAUSE)
        time.sleep(max(interruption.retry_after, pause * random.uniform(0.5, 1.0)))  # noqa: S311 - not for secrets

    def progressed(self) -> None:
        """Start to count anew: something went through."""
        self._failures = 0
