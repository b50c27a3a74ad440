"""A stack: the components that a pipeline runs with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_stepops.errors import StackError, did_you_mean
from airflow_stepops.stacks.components import (
    ArtifactStoreComponent,
    ContainerRegistryComponent,
    ImageBuilderComponent,
    StepOperatorComponent,
)


@dataclass(frozen=True)
class Stack:
    """One artifact store, one container registry, one image builder, and step operators, the default first.

    :param find_operator: returns a step operator of the same stack file by name: jobs of other stacks, or of this one
        as it was, may be in the same artifact store.
    """

    name: str
    artifact_store: ArtifactStoreComponent
    container_registry: ContainerRegistryComponent
    image_builder: ImageBuilderComponent
    step_operators: tuple[StepOperatorComponent, ...]
    find_operator: Callable[[str], StepOperatorComponent] | None = field(default=None, repr=False, compare=False)

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

    def operator_of(self, document: Mapping[str, Any]) -> StepOperatorComponent:
        """Return the step operator to which the document in a ledger says that a job was given.

        Whoever may write into the artifact store may have written the document. So it says no more than where the job
        is (region, project, workspace); the stack says with which connection to ask there.

        :param document: of :meth:`~airflow_stepops.stacks.components.Component.document`.
        :raises StackError: if the stack file has no step operator of that name and flavor.
        """
        find = self.find_operator or self.operator_named
        operator = find(str(document.get("name", "")))
        if document.get("flavor") != operator.flavor:
            raise StackError(
                f"step operator {operator.name!r} is of flavor {operator.flavor!r}, and was of "
                f"{document.get('flavor')!r} when the job was launched."
            )
        return operator.at_place_of(document)
