"""The CustomJob of a request for one attempt of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_stepops.clouds.gcp.limits import LONGEST_LABEL, LONGEST_VALUE, is_of_labels
from airflow_stepops.clouds.gcp.machines import machine_spec
from airflow_stepops.clouds.gcp.step_operator import LABEL, VertexStepOperator
from airflow_stepops.errors import JobRefusedError
from airflow_stepops.jobs.protocol import JobRequest
from airflow_stepops.runtime.spec import COMMAND, spec_variables

#: In values of variables Vertex AI puts a variable in the place of $(NAME), and, as Kubernetes does, one $ in the place
#: of two. Doubled, these stay what they are.
_DOLLARS = re.compile(r"\$\$+|\$(?=\()")


def create_request(request: JobRequest, settings: VertexStepOperator, project: str) -> dict[str, Any]:
    """Return the CustomJob.

    :param project: id of the project that the job is in.
    :raises JobRefusedError: if a job of Vertex AI cannot do what is asked for.
    """
    if not request.artifact_root.startswith("gs://"):
        raise JobRefusedError(
            f"a job of Vertex AI cannot reach the artifact store {request.artifact_root}: give the stack an "
            "artifact_store of flavor 'gcs'."
        )
    unknown = [f"{name}={reference!r}" for name, reference in request.secrets.items() if reference.startswith("env:")]
    if unknown:
        raise JobRefusedError(
            f"secret {', '.join(unknown)}: Vertex AI has no place for a secret's value in a job. Keep it in Secret "
            "Manager, and let the step read it there as the job's service account."
        )
    job = {
        "displayName": request.name,
        "labels": _labels(request, settings),
        "jobSpec": _without_empty(
            {
                "workerPoolSpecs": _pools(request, settings),
                "scheduling": _scheduling(request, settings),
                "baseOutputDirectory": {"outputUriPrefix": f"{request.spec_uri.rpartition('/')[0]}/vertex"},
                "serviceAccount": settings.service_account,
                "network": settings.network,
                "reservedIpRanges": settings.reserved_ip_ranges,
                "pscInterfaceConfig": _without_empty({"networkAttachment": settings.psc_interface}),
                "persistentResourceId": settings.persistent_resource,
                "tensorboard": settings.tensorboard,
                "experiment": _experiment(settings, project),
                "enableWebAccess": settings.web_access,
            }
        ),
        **_without_empty({"encryptionSpec": _without_empty({"kmsKeyName": settings.encryption_key})}),
    }
    merged: dict[str, Any] = _merged(job, settings.extra)
    return merged


def _pools(request: JobRequest, settings: VertexStepOperator) -> list[dict[str, Any]]:
    """Return the worker pools: Vertex wants the first machine to be one of its own, also where the others are alike."""
    machine = machine_spec(request.resources, settings)
    pools = [(machine, 1)]
    if settings.replica_count > 1:
        pools.append((machine, settings.replica_count - 1))
    for pool in settings.worker_pools:
        count = pool.accelerator_count or (1 if pool.accelerator_type else None)
        spec = {
            "machineType": pool.machine_type,
            "acceleratorType": pool.accelerator_type,
            "acceleratorCount": count,
        }
        pools.append((_without_empty(spec), pool.replica_count))
    return [
        _without_empty(
            {
                "machineSpec": spec,
                "replicaCount": str(count),
                "containerSpec": {
                    "imageUri": request.image,
                    "command": list(COMMAND),
                    "env": _environment(request, settings),
                },
                "diskSpec": _without_empty(
                    {"bootDiskType": settings.boot_disk_type, "bootDiskSizeGb": settings.boot_disk_size}
                ),
                "nfsMounts": [
                    {"server": mount.server, "path": mount.path, "mountPoint": mount.mount_point}
                    for mount in settings.nfs_mounts
                ],
            }
        )
        for spec, count in pools
    ]


def _scheduling(request: JobRequest, settings: VertexStepOperator) -> dict[str, Any]:
    strategy = settings.strategy
    if request.resources.get("spot"):
        if strategy == "flex_start":
            raise JobRefusedError("Resources(spot=True): with strategy: flex_start there is no spot; leave one out.")
        strategy = "spot"
    wait = settings.max_wait if settings.max_wait is not None else request.pending_timeout
    return {
        "timeout": f"{request.timeout or settings.timeout}s",
        "strategy": strategy.upper(),
        **({"maxWaitDuration": f"{wait}s"} if strategy == "flex_start" and wait is not None else {}),
        **_without_empty(
            {
                "restartJobOnWorkerRestart": settings.restart_on_worker_restart,
                "disableRetries": settings.disable_retries,
            }
        ),
    }


def _environment(request: JobRequest, settings: VertexStepOperator) -> list[dict[str, str]]:
    variables = {
        **settings.environment,
        **request.environment,
        **spec_variables(request.spec_uri, LONGEST_VALUE),
    }
    return [{"name": name, "value": _DOLLARS.sub(r"\g<0>\g<0>", value)} for name, value in variables.items()]


def _labels(request: JobRequest, settings: VertexStepOperator) -> dict[str, str]:
    """Return the labels. That of the job's name is exact: it holds a hash of the attempt; the others are for people."""
    attempt = request.attempt
    ours = {
        "airflow_dag_id": attempt.dag_id,
        "airflow_run_id": attempt.run_id,
        "airflow_task_id": attempt.task_id,
        "airflow_map_index": str(attempt.map_index),
        "airflow_try_number": str(attempt.try_number),
    }
    return {**settings.labels, **{key: _label(value) for key, value in ours.items()}, LABEL: request.name}


def _label(text: str) -> str:
    """Return text as the value of a label."""
    return "".join(character if is_of_labels(character) else "_" for character in text.lower())[:LONGEST_LABEL]


def _experiment(settings: VertexStepOperator, project: str) -> str | None:
    if settings.experiment_name is None:
        return None
    return f"projects/{project}/locations/{settings.region}/metadataStores/default/contexts/{settings.experiment_name}"


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, False, 0, [], {}, "")}


def _merged(made: Any, extra: Any) -> Any:
    """Return a part of the request with further fields: mappings are merged, lists item by item; all else replaces."""
    if isinstance(made, dict) and isinstance(extra, Mapping):
        return {**made, **{key: _merged(made.get(key), value) for key, value in extra.items()}}
    if (
        isinstance(made, list)
        and isinstance(extra, list)
        and all(isinstance(item, Mapping) for item in [*made, *extra])
    ):
        both = [_merged(ours, theirs) for ours, theirs in zip(made, extra, strict=False)]
        return [*both, *made[len(both) :], *extra[len(both) :]]
    return extra
