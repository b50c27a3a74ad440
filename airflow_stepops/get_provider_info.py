"""What Airflow asks of a provider package (schema: ``airflow/provider_info.schema.json``)."""

from __future__ import annotations

from typing import Any

from airflow_stepops import __version__

#: Classes of ``airflow_stepops.links.job``; naming them is lighter than importing them.
_LINKS = ("JobLink", "JobLogsLink", "ImageLink", "ArtifactsLink")


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description: decorators, links, connection type, configuration."""
    return {
        "package-name": "airflow-stepops",
        "name": "StepOps",
        "description": "Run one step of a DAG on a managed ML service: no container engine, one job per attempt.",
        "versions": [__version__],
        "task-decorators": [{"name": "step", "class-name": "airflow_stepops.decorators.step.step"}],
        "cli": ["airflow_stepops.cli.airflow_commands.get_cli_commands"],
        "extra-links": [f"airflow_stepops.links.job.{link}" for link in _LINKS],
        "connection-types": [
            {
                "connection-type": "container_registry",
                "hook-class-name": "airflow_stepops.hooks.container_registry.ContainerRegistryHook",
                "hook-name": "Container registry",
                "ui-field-behaviour": {
                    "hidden-fields": ["port", "schema", "extra"],
                    "relabeling": {"host": "Registry", "login": "User name", "password": "Password or token"},
                    "placeholders": {"host": "registry.example.com:5000"},
                },
            }
        ],
        "config": {
            "stepops": {
                "description": "Settings of airflow-stepops.",
                "options": {
                    "config": _option(
                        "Path of stepops.yaml; empty: the file beside the DAGs.", "/opt/airflow/stepops.yaml"
                    ),
                    "stack": _option(
                        "Name of the stack for pipelines that name none; empty: the active one of stepops.yaml.", "prod"
                    ),
                    "home": _option(
                        "Folder for what stays on this machine: caches, and the values, images and jobs of the local "
                        "stack; empty: stepops in AIRFLOW_HOME.",
                        "/var/lib/stepops",
                    ),
                    "max_context_mb": _option(
                        "Largest size of the code that travels with a step, in MB.",
                        "100",
                        kind="integer",
                        default="100",
                    ),
                },
            }
        },
    }


def _option(description: str, example: str, *, kind: str = "string", default: str = "") -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }
