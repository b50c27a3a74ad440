"""What Airflow's processes import in a journey, imported once by the server that forks them."""

from __future__ import annotations

import gc
import importlib
import pkgutil

import airflow_stepops

_OF_OTHERS = (
    "airflow.providers.amazon.aws.hooks.base_aws",
    "airflow.sdk.definitions.connection",
    "airflow.sdk.execution_time.supervisor",
    "azure.identity",
    "obstore.store",
)
_UNUSED = ("airflow_stepops.cli", "airflow_stepops.plugins", "airflow_stepops.runtime.__main__")

_OURS = (module.name for module in pkgutil.walk_packages(airflow_stepops.__path__, "airflow_stepops."))

for _name in (*_OF_OTHERS, *_OURS):
    if not _name.startswith(_UNUSED):
        importlib.import_module(_name)

gc.freeze()  # else each process would copy all of it when it collects garbage
