"""Image builder ``oci``: assembles images in this process, without a container engine."""

from __future__ import annotations

from typing import ClassVar

from airflow_stepops.stacks.components import ImageBuilderComponent


class OciImageBuilder(ImageBuilderComponent):
    """The default: a base image by digest, and layers for requirements, runtime and code."""

    flavor: ClassVar[str] = "oci"
