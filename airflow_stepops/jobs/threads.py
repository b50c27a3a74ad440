"""Blocking calls from the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what a blocking function returns, called in a thread.

    What the function asks of Airflow, such as a connection, is asked by the event loop. Before Airflow 3.2 a triggerer
    ends when a thread asks by itself, as one of ``asyncio.to_thread`` would.
    """
    return await sync_to_async(function, thread_sensitive=False)(*args, **kwargs)
