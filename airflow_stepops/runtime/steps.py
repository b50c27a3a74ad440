"""What DAG files see as ``airflow_stepops.dag`` inside a step's image: decorators that only mark functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_stepops.options import Image, Resources
from airflow_stepops.runtime.marks import MarkedStep

__all__ = ["Image", "Resources", "RetryByKind", "maintenance", "pipeline", "step"]


def step(function: Callable[..., Any] | None = None, /, **_options: Any) -> Any:
    """Mark a function as a step: it is called as the plain function."""
    return MarkedStep if function is None else MarkedStep(function)


def pipeline(function: Callable[..., Any] | None = None, /, **_options: Any) -> Any:
    """Mark a function as a pipeline; inside a job it is never called."""
    return (lambda decorated: decorated) if function is None else function


def maintenance(stack: str | None = None, **_options: Any) -> None:
    """Make no DAG; inside a job there is nothing to maintain."""


class RetryByKind:
    """No retry policy; inside a job nothing is retried."""

    def __init__(self, **_kinds: Any) -> None:
        """Take what the real one takes."""
