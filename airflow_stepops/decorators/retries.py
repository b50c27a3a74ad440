"""``RetryByKind``: how an attempt ended decides whether and when the next one begins."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow_stepops.errors import EndKind, JobFailedError, StepDefinitionError, did_you_mean
from airflow_stepops.jobs.outcome import FINAL_KINDS
from airflow_stepops.operators.versions import RetryDecision, RetryPolicy
from airflow_stepops.options import duration_seconds

_RETRIED = sorted(kind.value for kind in EndKind if kind not in FINAL_KINDS)
_USUAL = {"preempted": 0, "infrastructure": 0, "capacity": "15m"}


class RetryByKind(RetryPolicy):
    """A retry policy of Airflow for steps that run as jobs; needs Airflow 3.3.

    ``retries`` of the step stays the bound for all of them together. A kind that is not named waits as
    ``retry_delay`` of the step says, but for those with defaults: ``preempted`` and ``infrastructure`` begin again at
    once, ``capacity`` after 15 minutes.

    :param kinds: kind of end → how long to wait before the next try (seconds, a ``timedelta``, or text such as
        ``"30m"``; 0 for not at all), or ``False`` to fail at once.
    :raises StepDefinitionError: naming the kind, when it or its value is wrong, or when Airflow is older than 3.3.
    """

    def __init__(self, **kinds: Any) -> None:
        if RetryPolicy is object:
            raise StepDefinitionError("RetryByKind needs Airflow 3.3 or later: before, use retries and retry_delay.")
        for kind in kinds:
            if kind not in _RETRIED:
                raise StepDefinitionError(
                    f"RetryByKind({kind}=…): no kind of end that is retried has this name."
                    f"{did_you_mean(kind, _RETRIED)} Allowed: {', '.join(_RETRIED)}."
                )
        self._delays = {kind: _delay(value, kind) for kind, value in (_USUAL | kinds).items()}

    def evaluate(self, exception: BaseException, *_try: Any, **_named: Any) -> RetryDecision:
        """Return what to do after an attempt has failed; what is no end of a job follows the task's own settings."""
        if not isinstance(exception, JobFailedError) or exception.kind.value not in self._delays:
            return RetryDecision.default()
        delay, reason = self._delays[exception.kind.value], f"the job ended with {exception.kind.value}"
        return RetryDecision.fail(reason) if delay is None else RetryDecision.retry(delay, reason)


def _delay(value: Any, kind: str) -> timedelta | None:
    """Return the time to wait, ``None`` for no retry."""
    if value is False:
        return None
    if value is not True and value in (0, timedelta(0)):
        return timedelta(0)
    return timedelta(seconds=duration_seconds(value, f"RetryByKind({kind}=…)"))
