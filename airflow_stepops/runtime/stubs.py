"""Stand-ins for Airflow in a step's image, where a DAG file's own imports of it must not fail.

Only modules that cannot be found are stood in for, and only while the file is imported: a step that uses one of them
when it runs gets an error that says what to do, never a value that nobody made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

from airflow_stepops.errors import ConfigurationError
from airflow_stepops.runtime.marks import MarkedStep, defining_a_dag

#: Airflow itself, and what the first line of many DAG files imports because Airflow brings it.
_STOOD_IN = ("airflow", "pendulum")
#: Decorators whose function defines a DAG: it must not run inside a job.
_DEFINES_A_DAG = ("dag", "task_group")
#: What files compare to choose between imports: the oldest release that is supported.
_VERSION = "3.1.0"

_importing = False


class NotInImageError(ConfigurationError, AttributeError):
    """A running step uses something of Airflow, which is not in its image."""


class Stub:
    """Takes part in whatever a DAG file does at its top: calls, decorators, ``with``, ``>>``, subclassing."""

    _stub_name = "airflow"

    def __init__(self, name: str) -> None:
        self._stub_name = name

    def _stub(self, part: str) -> Stub:
        if not _importing:
            package = self._stub_name.partition(".")[0]
            raise NotInImageError(
                f"{self._stub_name} is not in the step's image, where there is no Airflow: give the step what it needs "
                f"as an argument, or add the package of {package!r} to Image(requirements=[…])."
            )
        return Stub(f"{self._stub_name}{part}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._stub(f".{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a decorated function as something callable, and anything else as a stub."""
        result = self._stub("()")
        if len(args) == 1 and not kwargs and isinstance(args[0], FunctionType) and not self._defines_a_dag():
            return MarkedStep(args[0])
        return result

    def _defines_a_dag(self) -> bool:
        return self._stub_name.removesuffix("()").rpartition(".")[2] in _DEFINES_A_DAG

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        """Be one base class, once: of several stubs the first, and none beside a class that derives from one."""
        derived = any(isinstance(base, type) and issubclass(base, StubBase) for base in bases)
        first = next(base for base in bases if isinstance(base, Stub))
        return (StubBase,) if first is self and not derived else ()

    def __enter__(self) -> Stub:
        entered = self._stub("")
        defining_a_dag.begin()
        return entered

    def __exit__(self, *_: object) -> None:
        defining_a_dag.end()

    def _same(self, _other: Any = None) -> Stub:
        return self._stub("")

    __rshift__ = __lshift__ = __rrshift__ = __rlshift__ = __or__ = __ror__ = __and__ = __rand__ = __invert__ = _same
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __mod__ = __neg__ = __getitem__ = _same

    def _unequal(self, _other: Any) -> bool:
        self._stub("")
        return False

    __lt__ = __le__ = __gt__ = __ge__ = _unequal

    def __iter__(self) -> Iterator[Any]:
        self._stub("")
        return iter(())

    def __contains__(self, _item: Any) -> bool:
        return self._unequal(None)

    def __len__(self) -> int:
        return self.__int__()

    def __int__(self) -> int:
        self._stub("")
        return 0

    def __float__(self) -> float:
        return float(self.__int__())

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        self._stub("")
        return repr(self)

    def __repr__(self) -> str:
        return f"<{self._stub_name}, which is not in the image>"


class StubBase(Stub):
    """Base of classes that derive from something of Airflow."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(type(self).__qualname__)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()

    def __bool__(self) -> bool:
        return True

    @classmethod
    def partial(cls, **_kwargs: Any) -> Stub:
        """Return a stub: tasks are mapped by Airflow."""
        return Stub(cls.__qualname__)._stub(".partial()")


class _StubModule(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__version__ = self.version = _VERSION

    def __getattr__(self, name: str) -> Any:
        if not _importing or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        found: Any = Stub(f"{self.__name__}.{name}")
        if name.endswith(("Exception", "Error")):  # to be raised and caught by steps
            found = type(name, (Exception,), {"__module__": self.__name__})
        setattr(self, name, found)
        return found


class _StubLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StubModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


class _StubFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not _importing or fullname.partition(".")[0] not in _STOOD_IN:
            return None
        return ModuleSpec(fullname, _StubLoader(), is_package=True)


@contextmanager
def standing_in() -> Iterator[None]:
    """Stand in for Airflow in the block, after everything that can really be found."""
    global _importing
    finder = _StubFinder()
    sys.meta_path.append(finder)
    _importing = True
    try:
        yield
    finally:
        _importing = False
        sys.meta_path.remove(finder)


def stood_in() -> list[str]:
    """Return the packages of which something was stood in for."""
    return [name for name in _STOOD_IN if isinstance(sys.modules.get(name), _StubModule)]
