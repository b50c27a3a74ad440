"""``@step`` and ``@task.step``: a Python function as a task that can run on a step operator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from airflow.sdk.bases.decorator import task_decorator_factory
from airflow.sdk.definitions._internal.contextmanager import DagContext

from airflow_stepops.decorators.options import check_options
from airflow_stepops.decorators.params import stable_param, with_stable_params
from airflow_stepops.errors import StepDefinitionError
from airflow_stepops.operators.source import check_shippable, source_file
from airflow_stepops.operators.step import StepTask
from airflow_stepops.runtime.outputs import declared_outputs

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_stepops.stacks.models import Stack

P = ParamSpec("P")
R = TypeVar("R")

#: Name of the stack of the pipeline whose function is running now.
current_stack: ContextVar[str | None] = ContextVar("airflow_stepops_stack", default=None)


class _ReadFor:
    """The DAG that is being defined, and the stacks that were read for it."""

    def __init__(self) -> None:
        self.dag: DAG | None = None
        self.stacks: dict[tuple[Path, str | None], Stack] = {}


_read_for = _ReadFor()


class Step(Generic[P, R]):
    """A step: called while a DAG is being defined, it becomes a task; called elsewhere, it is the plain function.

    :param function: the step's function.
    :param options: arguments of ``@step``, checked.
    """

    def __init__(self, function: Callable[P, R], options: Mapping[str, Any]) -> None:
        if not inspect.isfunction(function):
            raise StepDefinitionError(
                f"@step decorates a function written with def, not {function!r}. Write one that calls it."
            )
        self.function = function
        self._options = dict(options)
        functools.update_wrapper(self, function)
        if self._options.get("step_operator"):
            check_shippable(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add a task to the DAG that is being defined, or call the function when there is none."""
        if DagContext.get_current() is None and "dag" not in self._options:
            return self.function(*args, **kwargs)
        return self._task_decorator()(*map(stable_param, args), **with_stable_params(kwargs))

    def override(self, **options: Any) -> Step[P, R]:
        """Return the step with other arguments of ``@step``."""
        return type(self)(self.function, {**self._options, **check_options(options, self.function.__name__)})

    def partial(self, **kwargs: Any) -> Any:
        """Fix some arguments of a mapped step; ``.expand()`` the rest."""
        return self._task_decorator().partial(**with_stable_params(kwargs))

    def expand(self, **kwargs: Any) -> Any:
        """Map the step over lists, one task instance for each element."""
        return self._task_decorator().expand(**kwargs)

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> Any:
        """Map the step over a list of dicts of arguments."""
        return self._task_decorator().expand_kwargs(kwargs, strict=strict)

    def _task_decorator(self) -> Any:
        options = {"stack": current_stack.get(), **self._options}
        if options.get("step_operator"):
            _check_in_stack(self.function, options)
        outputs = declared_outputs(self.function)
        options.setdefault("multiple_outputs", outputs is not None)
        return task_decorator_factory(
            self.function, decorated_operator_class=StepTask, outputs=outputs, **_operator_arguments(options)
        )


def _check_in_stack(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check what only the stack knows: names, settings of the flavor, whether a base can be built."""
    stack = _stack(source_file(function).parent, options["stack"])
    component = stack.operator_named(options["step_operator"])
    if options.get("settings"):
        component.overridden(options["settings"])
    image = options.get("image")
    if image is not None and (image.dockerfile or image.apt_packages) and not stack.image_builder.builds_dockerfiles:
        raise StepDefinitionError(
            f"Step {function.__name__!r}: Image(dockerfile=…) and Image(apt_packages=…) need a container engine, and "
            f"stack {stack.name!r} builds without one: give the stack an image_builder of flavor 'docker', or "
            "use Image(base=…) or Image(uri=…)."
        )


def _stack(folder: Path, name: str | None) -> Stack:
    """Return a stack, read once for each DAG that is being defined."""
    from airflow_stepops.stacks.file import load

    dag = DagContext.get_current()
    if _read_for.dag is not dag or dag is None:
        _read_for.dag, _read_for.stacks = dag, {}
    if (folder, name) not in _read_for.stacks:
        _read_for.stacks[folder, name] = load(near=folder).stack(name)
    return _read_for.stacks[folder, name]


def _operator_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as arguments of :class:`StepTask`: plain JSON, so that the serialized DAG is stable."""
    arguments = dict(options)
    if "name" in arguments:
        arguments["task_id"] = arguments.pop("name")
    if "resources" in arguments:
        arguments["step_resources"] = arguments.pop("resources").to_dict()
    if "image" in arguments:
        arguments["image"] = arguments["image"].to_dict()
    return arguments


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(function: None = None, /, **options: Any) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Make a function a step. Bare, or with arguments; see the guide "Writing steps".

    :param step_operator: name of a step operator in the stack, ``True`` for the stack's default; without, the step
        runs in the Airflow worker.
    :param resources: a :class:`~airflow_stepops.options.Resources`.
    :param image: an :class:`~airflow_stepops.options.Image`.
    :param timeout: how long the job may run: seconds, a ``timedelta``, or text such as ``"6h"``.
    :param pending_timeout: how long the job may wait for capacity, likewise.
    :param environment: variables for the step; values may be templates. Not for secrets.
    :param secrets: variable name → secret reference, such as ``{"TOKEN": "env:TOKEN"}``.
    :param settings: settings of the step operator's flavor, for this step only.
    :param stack: name of a stack, instead of the pipeline's or the active one.
    :param name: the task's id; default: the function's name.
    :param options: the arguments of Airflow's BaseOperator, such as ``retries``.
    :raises StepDefinitionError: naming the argument, when one is unknown or wrong, or when the function cannot be
        shipped to a job.
    """
    if function is not None:
        return Step(function, {})
    checked = check_options(options, "step")
    return lambda decorated: Step(decorated, checked)
