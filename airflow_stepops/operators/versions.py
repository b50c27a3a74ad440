"""What moved between the supported versions of Airflow."""

from __future__ import annotations

try:
    from airflow.sdk import serde
    from airflow.sdk.exceptions import AirflowFailException, TaskDeferralTimeout
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import AirflowFailException, TaskDeferralTimeout  # type: ignore[no-redef]
    from airflow.serialization import serde  # type: ignore[attr-defined,no-redef]

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError:  # before Airflow 3.3
    RetryDecision = RetryPolicy = object  # type: ignore[assignment,misc]

__all__ = ["AirflowFailException", "RetryDecision", "RetryPolicy", "TaskDeferralTimeout", "serde"]
