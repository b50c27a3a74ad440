"""How an attempt ended: the kind of end, whether a retry can help, and the words for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_stepops.errors import EndKind
from airflow_stepops.jobs.protocol import JobState, JobStatus
from airflow_stepops.runtime.result import FAILED, STOPPED, SUCCEEDED, JobResult

#: Kinds that the next try would meet again: they fail at once, whatever ``retries`` says.
FINAL_KINDS = frozenset({EndKind.INVALID_REQUEST, EndKind.PERMISSION, EndKind.IMAGE, EndKind.CANCELLED})

#: What the user should do.
ADVICE = {
    EndKind.USER_CODE: "The step itself failed: fix it, or let Airflow retry it with retries=.",
    EndKind.CAPACITY: "The service had no machine of this kind: let it retry, or ask for other Resources.",
    EndKind.PREEMPTED: "The machine was taken away: let it retry, and keep checkpoints.",
    EndKind.TIMEOUT: "The step ran or waited longer than allowed: raise timeout= or pending_timeout=.",
    EndKind.INVALID_REQUEST: "The service refuses this request: correct the setting that it names.",
    EndKind.PERMISSION: "A permission is missing: grant it to the identity that the reason names.",
    EndKind.IMAGE: "The image could not be pulled or started: check that the service may read it.",
    EndKind.INFRASTRUCTURE: "The machine or the service failed: let it retry; if it was killed, ask for more memory.",
    EndKind.CANCELLED: "Somebody asked for the end of the job: clear the task to run it again.",
    EndKind.LOST_RESULT: "The job ended without leaving a valid result: see its log for the reason.",
}


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt.

    :param kind: ``None`` when it succeeded.
    :param reason: one line, in the service's or the step's words.
    """

    kind: EndKind | None
    reason: str = ""

    @property
    def final(self) -> bool:
        """Whether a retry could not help."""
        return self.kind in FINAL_KINDS


def judge(status: JobStatus, result: JobResult | None, problem: str = "") -> Outcome:
    """Decide how an attempt ended from what the service says and what the job left.

    A valid result of this attempt is the only proof of success.

    :param result: the result of this attempt, or ``None``.
    :param problem: why there is no result, when there is something that is not a valid one.
    """
    if result is not None and result.status == SUCCEEDED:
        return Outcome(None)
    if result is not None and result.status == FAILED and result.error is not None:
        return Outcome(EndKind.USER_CODE, f"{result.error.type}: {result.error.message}")
    if result is not None and result.status == STOPPED:
        text = result.error.message if result.error is not None else "stopped before its end"
        return Outcome(status.kind or EndKind.CANCELLED, status.reason or text)
    if status.state is JobState.SUCCEEDED:
        return Outcome(EndKind.LOST_RESULT, problem or "the job left no result")
    if status.state is JobState.STOPPED:
        return Outcome(status.kind or EndKind.CANCELLED, status.reason or "the job was stopped")
    reason = status.reason or (f"exit code {status.exit_code}" if status.exit_code is not None else "the job failed")
    return Outcome(status.kind or EndKind.INFRASTRUCTURE, "; ".join(filter(None, (reason, problem))))


def explain(
    outcome: Outcome,
    *,
    where: str,
    result: JobResult | None = None,
    log_tail: Sequence[str] = (),
    console_url: str = "",
) -> str:
    """Return the text of the error for people: kind, reason, traceback, last log lines, link, advice.

    :param where: the step operator and job, such as ``"local job churn-train-1-…"``.
    """
    assert outcome.kind is not None
    parts = [f"{where} ended with {outcome.kind.value}: {outcome.reason}"]
    if result is not None and result.error is not None and result.error.traceback:
        parts.append(f"Traceback of the step:\n{result.error.traceback.rstrip()}")
    elif log_tail:
        parts.append("Last lines of its log:\n" + "\n".join(f"  {line}" for line in log_tail))
    if console_url:
        parts.append(f"Job: {console_url}")
    parts.append(ADVICE[outcome.kind])
    return "\n".join(parts)
