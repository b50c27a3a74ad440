"""Flavors: which class holds the settings of a component. Built in, or found through entry points."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from airflow_stepops.errors import StackError
from airflow_stepops.stacks.checks import model_error, unknown_key
from airflow_stepops.stacks.components import (
    ArtifactStoreComponent,
    Component,
    ContainerRegistryComponent,
    ImageBuilderComponent,
    StepOperatorComponent,
)

C = TypeVar("C", bound=Component)

#: Kind of component (its section in the stack file, and ``airflow_stepops.<kind>`` as entry-point group) → its class.
KINDS: dict[str, type[Component]] = {
    "artifact_stores": ArtifactStoreComponent,
    "container_registries": ContainerRegistryComponent,
    "image_builders": ImageBuilderComponent,
    "step_operators": StepOperatorComponent,
}

_BUILT_IN = {
    "artifact_stores": {
        "local": "airflow_stepops.clouds.local.artifact_store:LocalArtifactStore",
        "s3": "airflow_stepops.clouds.aws.artifact_store:S3ArtifactStore",
        "gcs": "airflow_stepops.clouds.gcp.artifact_store:GcsArtifactStore",
        "azure-blob": "airflow_stepops.clouds.azure.artifact_store:AzureBlobArtifactStore",
    },
    "container_registries": {
        "local": "airflow_stepops.clouds.local.container_registry:LocalContainerRegistry",
        "generic": "airflow_stepops.clouds.generic.container_registry:GenericContainerRegistry",
        "ecr": "airflow_stepops.clouds.aws.container_registry:EcrContainerRegistry",
        "acr": "airflow_stepops.clouds.azure.container_registry:AcrContainerRegistry",
        "gar": "airflow_stepops.clouds.gcp.container_registry:GarContainerRegistry",
        "gcr": "airflow_stepops.clouds.gcp.container_registry:GcrContainerRegistry",
    },
    "image_builders": {
        "oci": "airflow_stepops.clouds.local.image_builder:OciImageBuilder",
        "docker": "airflow_stepops.clouds.docker.image_builder:DockerImageBuilder",
    },
    "step_operators": {
        "local": "airflow_stepops.clouds.local.step_operator:LocalStepOperator",
        "docker": "airflow_stepops.clouds.docker.step_operator:DockerStepOperator",
        "sagemaker": "airflow_stepops.clouds.aws.step_operator:SageMakerStepOperator",
        "vertex": "airflow_stepops.clouds.gcp.step_operator:VertexStepOperator",
        "azureml": "airflow_stepops.clouds.azure.step_operator:AzureMLStepOperator",
    },
}


def component(kind: str, name: str, settings: Mapping[str, Any], where: str) -> Component:
    """Make a component of what a stack file says of it.

    :param kind: one of :data:`KINDS`.
    :param settings: ``flavor`` and the flavor's settings.
    :param where: file and path, for errors.
    :raises StackError: naming the setting.
    """
    values = dict(settings)
    flavor = values.pop("flavor", None)
    if not isinstance(flavor, str):
        raise StackError(f"{where}.flavor: this setting is required. Allowed: {', '.join(flavors(kind))}.")
    if "name" in values:
        raise StackError(f"{where}.name: a component's name is its key in the file; drop this setting.")
    model = flavor_class(kind, flavor, where)
    try:
        return model(name=name, **values)
    except ValidationError as error:
        raise model_error(error, f"{where}.", model) from None


def component_from_document(kind: type[C], document: Mapping[str, Any]) -> C:
    """Rebuild a component from :meth:`~airflow_stepops.stacks.components.Component.document`.

    :param kind: the kind's class, such as ``StepOperatorComponent``.
    :raises StackError: when this installation does not know the flavor or a setting.
    """
    section = next(section for section, base in KINDS.items() if base is kind)
    values = dict(document)
    name = str(values.pop("name", ""))
    built = component(section, name, values, f"component {name!r}")
    assert isinstance(built, kind)
    return built


def flavors(kind: str) -> list[str]:
    """Return the names of all flavors of a kind, those of other packages included."""
    return sorted({*_BUILT_IN[kind], *_entry_points(kind)})


def flavor_class(kind: str, flavor: str, where: str) -> type[Component]:
    """Return the class of a flavor.

    :raises StackError: if there is none of that name, or it is not of this kind.
    """
    target = _BUILT_IN[kind].get(flavor) or _entry_points(kind).get(flavor)
    if target is None:
        raise unknown_key(f"{where}.flavor: {flavor!r}", flavor, flavors(kind), "flavor")
    module, _, name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise StackError(f"{where}.flavor: {target} of flavor {flavor!r} cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, KINDS[kind])):
        raise StackError(f"{where}.flavor: {target} of flavor {flavor!r} is not a {KINDS[kind].__name__}.")
    return found


def _entry_points(kind: str) -> dict[str, str]:
    # Scanning all distributions takes tens of milliseconds, so it is done only for a flavor that is not built in.
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=f"airflow_stepops.{kind}")}
