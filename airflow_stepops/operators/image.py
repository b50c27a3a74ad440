"""The image of a step's task: asked for by the worker that launches its job, and by who builds images beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_stepops import options
from airflow_stepops.operators.source import source_file

if TYPE_CHECKING:
    from airflow_stepops.images.builder import FinishedImage, PlannedImage
    from airflow_stepops.stacks.components import StepOperatorComponent
    from airflow_stepops.stacks.models import Stack


def step_image(
    function: Callable[..., Any],
    image: dict[str, Any],
    stack: Stack,
    component: StepOperatorComponent,
    root: Path,
    report: Callable[[str], None],
) -> PlannedImage | FinishedImage:
    """Return the image of a step.

    :param image: the JSON form of :class:`~airflow_stepops.options.Image`.
    :param component: the step operator, with the step's settings.
    :param root: the folder of code that travels with the step.
    :param report: called with lines for people.
    :raises ImageError: or one of its kinds, saying what to do.
    """
    from airflow_stepops.images.builder import plan_image

    folders = (stack.artifact_store.local_folder(), stack.container_registry.local_folder())
    return plan_image(
        options.from_dict(options.Image, image),
        target=component.target(),
        code_root=root,
        dag_file=source_file(function),
        repository=stack.container_registry.open(),
        builder=stack.image_builder,
        report=report,
        without=[folder for folder in folders if folder is not None],
    )
