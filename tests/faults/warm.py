"""What Airflow's processes import and read in a journey, once, by the server that forks them."""

from __future__ import annotations

import functools
import gc
import importlib
import pkgutil

import boto3
from botocore.loaders import JSONFileLoader

import airflow_stepops

_OF_OTHERS = (
    "airflow.dag_processing.dagbag",
    "airflow.providers.amazon.aws.hooks.base_aws",
    "airflow.sdk.definitions.connection",
    "airflow.sdk.execution_time.supervisor",
    "azure.identity",
    "obstore.store",
)
_OURS = (module.name for module in pkgutil.walk_packages(airflow_stepops.__path__, "airflow_stepops."))
_UNUSED = ("airflow_stepops.cli", "airflow_stepops.plugins", "airflow_stepops.runtime.__main__")

for _name in (*_OF_OTHERS, *_OURS):
    if not _name.startswith(_UNUSED):
        importlib.import_module(_name)

# botocore parses megabytes of JSON for each client, half of what a process of Airflow would compute in a journey.
_read = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
JSONFileLoader.load_file = lambda _, path: _read(path)  # type: ignore[method-assign]
for _name in ("s3", "ecr", "sagemaker", "logs"):
    boto3.Session("none", "none", region_name="eu-central-1").client(_name)

gc.freeze()  # else each process would copy all of it when it collects garbage
