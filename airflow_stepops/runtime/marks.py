"""Functions that are marked as steps or tasks, in a step's image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from airflow_stepops.errors import StepDefinitionError


class _Definition:
    """Whether the code that runs now is inside a ``with DAG(…)`` block, where tasks are called but must not run."""

    def __init__(self) -> None:
        self._open_blocks = 0

    def __bool__(self) -> bool:
        return self._open_blocks > 0

    def begin(self) -> None:
        """Enter a block."""
        self._open_blocks += 1

    def end(self) -> None:
        """Leave a block."""
        self._open_blocks -= 1


defining_a_dag = _Definition()


class MarkedStep:
    """A function that is a step or a task: itself when it is called, nothing while a DAG is defined.

    :param function: kept as ``__wrapped__``.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, outside of a DAG's definition."""
        return _Placeholder(self.function.__name__) if defining_a_dag else self.function(*args, **kwargs)

    def override(self, **_options: Any) -> MarkedStep:
        """Return the step itself: options are for the task."""
        return self

    def partial(self, **_kwargs: Any) -> Any:
        """Return a placeholder while a DAG is defined.

        :raises StepDefinitionError: inside a running step, where nothing is mapped.
        """
        if not defining_a_dag:
            raise StepDefinitionError(
                f"{self.function.__name__} cannot be mapped inside a running step: partial() and expand() are for "
                "pipelines. Call it in a loop."
            )
        return _Placeholder(self.function.__name__)

    expand = expand_kwargs = partial


class _Placeholder:
    """What a task returns while a DAG is defined: it takes part in the definition and holds nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self

    def _same(self, *_args: Any, **_kwargs: Any) -> _Placeholder:
        return self

    __call__ = __rshift__ = __lshift__ = __rrshift__ = __rlshift__ = __getitem__ = __enter__ = _same

    def __exit__(self, *_: object) -> None:
        """Nothing to leave."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __repr__(self) -> str:
        return f"<output of {self._name}, which has not run>"
