"""A stack: the components that a pipeline runs with."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_stepops.errors import StackError, did_you_mean
from airflow_stepops.stacks.components import (
    ArtifactStoreComponent,
    ContainerRegistryComponent,
    ImageBuilderComponent,
    StepOperatorComponent,
)


@dataclass(frozen=True)
class Stack:
    """One artifact store, one container registry, one image builder, and step operators, the default first."""

    name: str
    artifact_store: ArtifactStoreComponent
    container_registry: ContainerRegistryComponent
    image_builder: ImageBuilderComponent
    step_operators: tuple[StepOperatorComponent, ...]

    @property
    def step_operator(self) -> StepOperatorComponent:
        """The default step operator.

        :raises StackError: if the stack has none.
        """
        return self.operator_named(True)

    def operator_named(self, name: str | bool | None) -> StepOperatorComponent:
        """Return a step operator by name; ``True`` is the stack's default.

        :raises StackError: if the stack has none of that name, or none at all.
        """
        for operator in self.step_operators:
            if name is True or operator.name == name:
                return operator
        if name is True:
            raise StackError(f"stack {self.name!r} has no step operator: add one with 'step_operators: [NAME]'.")
        names = [operator.name for operator in self.step_operators]
        near = did_you_mean(str(name), names)
        raise StackError(
            f"stack {self.name!r} has no step operator {name!r}.{near} It has: {', '.join(names) or 'none'}."
        )
