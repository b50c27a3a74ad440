"""What a triggerer loads to wait for a job of Azure ML, over what every triggerer has in memory.

It is the whole way to the first answer: trigger, components, connection with a service principal, access token, a call
to Resource Manager, artifact store. Azure is an emulation in another process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS = 7
MOST_MS = 500.0
#: What no triggerer should load for this.
HEAVY = ("azure.ai", "azure.mgmt", "azure.storage", "msrest", "marshmallow", "grpc", "pandas", "numpy")
_OF_TRIGGERERS = "airflow.jobs.triggerer_job_runner"


def main() -> None:
    """Measure, check, and print one JSON object as the last line."""
    from tests.clouds.azure.emulated import emulated_azure

    with tempfile.TemporaryDirectory() as name, emulated_azure(Path(name)) as azure:
        azure.apis["arm"] = lambda _: (404, {"error": {"code": "ResourceNotFound", "message": "no such job"}})
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "STEPOPS_"))},
            "AIRFLOW_HOME": name,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_AZURE": azure.connection(),
            "SSL_CERT_FILE": str(azure.authority),
            "REQUESTS_CA_BUNDLE": str(azure.authority),
        }
        measured = [_child(environment) for _ in range(ROUNDS + 1)][1:]  # the first round compiles the modules
    heavy = sorted({name for one in measured for name in one["heavy"]})
    ms = statistics.median(one["seconds"] for one in measured) * 1000
    failed = bool(heavy) or ms > MOST_MS
    if failed:
        print(f"OVER THE LIMITS: {ms:.0f} ms of {MOST_MS:.0f}, no heavy module; loaded: {heavy}")
    print(json.dumps({"name": "import_azure", "ms_over_airflow": round(ms, 1)}))
    sys.exit(failed)


def _child(environment: dict[str, str]) -> Any:
    command = [sys.executable, "-m", "benchmarks.import_azure", "once"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measure() -> dict[str, Any]:
    __import__(_OF_TRIGGERERS)
    before, started = set(sys.modules), time.perf_counter()
    _load()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "heavy": sorted((set(sys.modules) - before) & set(HEAVY))}


def _load() -> None:
    from airflow_stepops.errors import JobNotFoundError
    from airflow_stepops.stacks.components import ArtifactStoreComponent, StepOperatorComponent
    from airflow_stepops.stacks.flavors import component_from_document
    from airflow_stepops.triggers.job import JobTrigger

    settings = {"flavor": "azureml", "resource_group": "ml", "workspace_name": "team", "connection": "azure"}
    store = {"flavor": "azure-blob", "account_name": "values", "container": "steps", "connection": "azure"}
    JobTrigger(entry={}, artifact_store=store, submitted_at=time.time())
    service = component_from_document(StepOperatorComponent, settings).connect()
    try:
        service.describe("journey-1")
    except JobNotFoundError:
        pass
    else:
        raise AssertionError("the emulation has no jobs")
    component_from_document(ArtifactStoreComponent, store).open()


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(_measure()))
    else:
        main()
