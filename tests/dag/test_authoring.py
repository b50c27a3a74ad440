"""What DAG authors write, and what they are told when it cannot work."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from typing import Annotated, Any, TypedDict

import pytest
from airflow.sdk import DAG, dag, task, task_group

from airflow_stepops.dag import Image, Resources, pipeline, step
from airflow_stepops.errors import StackError, StepDefinitionError
from tests.airflow_versions import serialized


@step
def load(day: str) -> list[int]:
    """Read a day."""
    return [len(day)]


@step(step_operator="local", resources=Resources(cpus=2, memory="1GiB"), timeout="1h 30m", retries=3)
def train(data: list[int], rate: float = 0.1) -> dict[str, float]:
    return {"rate": rate, "n": len(data)}


@step(step_operator=True)
def split(data: list[int]) -> tuple[Annotated[list[int], "left"], Annotated[list[int], "right"]]:
    return data[:1], data[1:]


class Halves(TypedDict):
    low: int
    high: int


@dataclasses.dataclass
class Scores:
    rmse: float
    mae: float


@step
def typed() -> Halves:
    return {"low": 1, "high": 2}


@step
def scored() -> Scores:
    return Scores(1.0, 2.0)


def test_a_pipeline_is_a_dag_with_the_functions_name_and_its_arguments_as_params() -> None:
    @pipeline(tags=["flights"])
    def churn(rate: float = 0.2, day: str = "today") -> None:
        """Predict churn."""
        train(load(day), rate=rate)

    assert isinstance(churn, DAG)
    assert churn.dag_id == "churn"
    assert dict(churn.params) == {"rate": 0.2, "day": "today"}
    assert churn.doc_md == "Predict churn."
    assert churn.fileloc == __file__
    assert churn.catchup is False
    assert churn.get_task("train").upstream_task_ids == {"load"}


def test_a_bare_pipeline_needs_no_parentheses() -> None:
    @pipeline
    def nightly() -> None:
        load("x")

    assert isinstance(nightly, DAG)
    assert nightly.task_ids == ["load"]


def test_outside_a_dag_a_step_is_the_plain_function() -> None:
    assert load("abc") == [3]
    assert train([1, 2], rate=0.5) == {"rate": 0.5, "n": 2}
    assert train.__name__ == "train"
    assert load.__doc__ == "Read a day."


def test_a_step_takes_its_options_and_those_of_base_operator() -> None:
    @pipeline
    def options() -> None:
        train(load("x"))

    operator = options.get_task("train")
    assert operator.step_operator == "local"
    assert operator.step_resources == {"cpus": 2, "memory": "1GiB"}
    assert operator.timeout == 5400
    assert operator.retries == 3


def test_steps_stand_beside_ordinary_operators_groups_and_mapped_steps() -> None:
    @task
    def ordinary() -> list[int]:
        return [1]

    @dag(dag_id="mixed", schedule=None)
    def mixed() -> None:
        @task_group
        def models(data: Any) -> Any:
            return train.override(name="fit", retries=7).partial(rate=0.3).expand(data=[[1], [2]])

        numbers = ordinary()
        fitted = models(numbers)
        load("{{ ds }}") >> numbers
        fitted >> scored()

    compiled = mixed()
    assert set(compiled.task_ids) == {"ordinary", "load", "models.fit", "scored"}
    fit = compiled.get_task("models.fit")
    assert fit.is_mapped
    assert fit.partial_kwargs["retries"] == 7
    assert fit.partial_kwargs["step_operator"] == "local"
    assert compiled.get_task("ordinary").upstream_task_ids == {"load"}


def test_task_step_is_the_same_decorator() -> None:
    @dag(dag_id="taskflow", schedule=None)
    def taskflow() -> None:
        @task.step(name="inline")
        def here() -> int:
            return 1

        here()

    assert taskflow().get_task("inline").step_operator is None


def test_declared_outputs_are_read_by_name() -> None:
    @pipeline
    def named() -> None:
        parts = split(load("x"))
        train.override(name="left")(parts["left"])
        train.override(name="right")(parts["right"])
        typed()
        scored()

    assert named.get_task("split").outputs == ["left", "right"]
    assert named.get_task("typed").outputs == ["low", "high"]
    assert named.get_task("scored").outputs == ["rmse", "mae"]
    assert named.get_task("left").upstream_task_ids == {"split"}


def test_the_stack_of_a_pipeline_reaches_its_steps_and_no_others() -> None:
    @pipeline(stack="local")
    def inside() -> None:
        load("x")

    @pipeline
    def after() -> None:
        load("x")

    assert inside.get_task("load").stack == "local"
    assert after.get_task("load").stack is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"step_operater": "x"}, "no argument 'step_operater'. Did you mean 'step_operator'?"),
        ({"retry": 3}, "Did you mean 'retries'?"),
        ({"step_operator": 3}, "3 is neither the name of a step operator"),
        ({"resources": {"gpus": 1}}, "must be Resources(…)"),
        ({"image": "python:3.12"}, "must be Image(…)"),
        ({"timeout": "six hours"}, "timeout"),
        ({"timeout": timedelta(0)}, "from one second"),
        ({"timeout": float("inf")}, "timeout=…)=inf is not a duration"),
        ({"timeout": float("nan")}, "timeout=…)=nan is not a duration"),
        ({"pending_timeout": 10**400}, "to 10000 days"),
        ({"pending_timeout": "-5m"}, "pending_timeout"),
        ({"environment": {"A-B": "x"}}, "'A-B' is not a variable name"),
        ({"environment": {"A": 1}}, "must be text"),
        ({"environment": {"STEPOPS_SPEC": "x"}}, "reserved"),
        ({"secrets": {"TOKEN": "hunter2"}}, "not a secret reference"),
        ({"name": "a", "task_id": "b"}, "give one of them"),
        ({"settings": ["x"]}, "must be a dict"),
    ],
)
def test_a_wrong_argument_is_named_while_the_dag_is_parsed(options: dict[str, Any], says: str) -> None:
    with pytest.raises(StepDefinitionError, match=re.escape(says)):
        step(**options)(load.function)


def test_a_secret_given_by_mistake_is_not_repeated_in_the_error() -> None:
    with pytest.raises(StepDefinitionError) as caught:
        step(secrets={"TOKEN": "hunter2"})(load.function)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Resources(cpus=0), "cpus=0"),
        (lambda: Resources(cpus=float("nan")), "cpus=nan"),
        (lambda: Resources(cpus=float("inf")), "cpus=inf"),
        (lambda: Resources(memory=f"{'9' * 400}GiB"), "is not an amount of memory"),
        (lambda: Resources(memory="32 apples"), "32 apples"),
        (lambda: Resources(gpus=-1), "gpus=-1"),
        (lambda: Resources(gpu_type="a10g"), "gpus=1"),
        (lambda: Resources(spot="yes"), "True or False"),  # type: ignore[arg-type]
        (lambda: Image(requirements=[1]), "requirements"),  # type: ignore[arg-type,list-item]
        (lambda: Image(python="3"), "3.12"),
        (lambda: Image(platform="windows"), "linux/amd64"),
        (lambda: Image(uri="x@sha256:1", apt_packages=["git"]), "apt_packages would have no effect"),
        (lambda: Image(base="x", dockerfile="Dockerfile"), "give one of them"),
    ],
)
def test_a_wrong_image_or_machine_is_named(make: Any, says: str) -> None:
    with pytest.raises(StepDefinitionError, match=re.escape(says)):
        make()


def test_a_step_that_cannot_be_shipped_is_refused_with_what_to_do() -> None:
    captured = 3

    def nested() -> int:
        return captured

    class Thing:
        def method(self) -> int:
            return 1

    for function, says in [
        (lambda: 1, "it is a lambda"),
        (nested, "captures captured. Move it to the top of the module"),
        (Thing.method, "inside another function"),
        (Thing(), "a function written with def"),
        (len, "a function written with def"),
        (3, "a function written with def"),
    ]:
        with pytest.raises(StepDefinitionError, match=re.escape(says)):
            step(step_operator=True)(function)  # type: ignore[arg-type]


def test_a_nested_function_runs_in_the_worker_but_not_after_an_override_to_a_step_operator() -> None:
    @step
    def nested() -> int:
        return 1

    with pytest.raises(StepDefinitionError, match="Move it to the top of the module"):
        nested.override(step_operator="local")


def test_an_unknown_step_operator_or_stack_is_an_error_while_the_dag_is_parsed() -> None:
    with pytest.raises(StackError, match=r"'locl'.*Did you mean 'local'\?"):

        @pipeline
        def wrong_operator() -> None:
            train.override(step_operator="locl")([1])

    with pytest.raises(StackError, match="nowhere"):

        @pipeline(stack="nowhere")
        def wrong_stack() -> None:
            train([1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"stak": "x"}, "no argument 'stak'. Did you mean 'stack'?"),
        ({"shedule": None}, "Did you mean 'schedule'?"),
        ({"stack": 3}, "give the name of a stack"),
    ],
)
def test_a_wrong_pipeline_argument_is_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(StepDefinitionError, match=re.escape(says)):
        pipeline(**arguments)(load.function)


def test_a_pipeline_argument_needs_a_default() -> None:
    with pytest.raises(StepDefinitionError, match="'day' needs a default"):

        @pipeline
        def needs(day: str) -> None:
            load(day)


def test_packages_for_the_base_need_a_builder_with_an_engine() -> None:
    with pytest.raises(StepDefinitionError, match="image_builder of flavor 'docker'"):

        @pipeline(stack="local")
        def apt() -> None:
            train.override(image=Image(apt_packages=["libgomp1"]))([1])


def test_a_file_that_has_not_changed_makes_no_new_version_of_its_dag() -> None:
    def parsed() -> dict[str, Any]:
        @pipeline(dag_id="stable")
        def stable(rate: float = 0.2) -> None:
            train.override(
                image=Image(requirements=["pandas"]), environment={"A": "{{ ds }}"}, secrets={"TOKEN": "env:TOKEN"}
            ).partial(rate=rate).expand(data=[[1], [2]])
            train(load("x"), rate=rate)
            train(load("x"), rate)

        return serialized(stable)

    first = parsed()
    assert first == parsed()
    assert " at 0x" not in str(first)
