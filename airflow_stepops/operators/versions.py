"""What moved between the supported versions of Airflow."""

from __future__ import annotations

try:
    from airflow.sdk import serde
    from airflow.sdk.exceptions import AirflowFailException, TaskDeferralError, TaskDeferralTimeout
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import (  # type: ignore[no-redef]
        AirflowFailException,
        TaskDeferralError,
        TaskDeferralTimeout,
    )
    from airflow.serialization import serde  # type: ignore[attr-defined,no-redef]

try:
    from airflow.sdk import NEVER_EXPIRE, RetryDecision, RetryPolicy  # type: ignore[attr-defined]
except ImportError:  # before Airflow 3.3
    NEVER_EXPIRE = None
    RetryDecision = RetryPolicy = object  # type: ignore[assignment,misc]

__all__ = [
    "NEVER_EXPIRE",
    "AirflowFailException",
    "RetryDecision",
    "RetryPolicy",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "serde",
]
