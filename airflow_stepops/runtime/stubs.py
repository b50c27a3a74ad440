"""Stand-ins for Airflow in a step's image, where a DAG file's own imports of it must not fail.

Only modules that cannot be found are stood in for: with Airflow installed in the image, the real one is used.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

#: Decorators whose function defines a DAG: it must not run inside a job.
_DEFINES_A_DAG = ("dag", "task_group")

_open_blocks = 0


def defining_a_dag() -> bool:
    """Whether the code that runs now is inside a ``with DAG(…)`` block: tasks called there must not run."""
    return _open_blocks > 0


class Stub:
    """Takes part in whatever a DAG file does at its top: calls, decorators, ``with``, ``>>``, subclassing."""

    def __init__(self, name: str) -> None:
        self._stub_name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Stub(f"{self._stub_name}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a decorated function as something callable, and anything else as a stub."""
        if len(args) == 1 and not kwargs and isinstance(args[0], FunctionType) and not self._defines_a_dag():
            return StubTask(args[0])
        return Stub(f"{self._stub_name}()")

    def _defines_a_dag(self) -> bool:
        return self._stub_name.removesuffix("()").rpartition(".")[2] in _DEFINES_A_DAG

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (StubBase,)

    def __enter__(self) -> Stub:
        global _open_blocks
        _open_blocks += 1
        return self

    def __exit__(self, *_: object) -> None:
        global _open_blocks
        _open_blocks -= 1

    def _same(self, _other: Any = None) -> Stub:
        return self

    __rshift__ = __lshift__ = __rrshift__ = __rlshift__ = __or__ = __ror__ = __and__ = __add__ = __getitem__ = _same

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<{self._stub_name}, which is not in the image>"


class StubTask:
    """A function decorated as a task: itself when a step calls it, nothing while a DAG is defined."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, outside of a DAG's definition."""
        return Stub(self.function.__name__) if defining_a_dag() else self.function(*args, **kwargs)

    def override(self, **_options: Any) -> StubTask:
        """Return the task itself."""
        return self

    def partial(self, **_kwargs: Any) -> Stub:
        """Return a stub: tasks are mapped by Airflow."""
        return Stub(self.function.__name__)

    expand = expand_kwargs = partial


class StubBase:
    """Base of classes that derive from something of Airflow."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()


class _StubModule(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Stub(f"{self.__name__}.{name}")


class _StubLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StubModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


class _StubFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "airflow":
            return None
        return ModuleSpec(fullname, _StubLoader(), is_package=True)


def install() -> None:
    """Stand in for Airflow from now on, after everything that can really be found."""
    sys.meta_path.append(_StubFinder())
