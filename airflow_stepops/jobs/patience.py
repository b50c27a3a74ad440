"""Trying calls to a service again while it fails for now."""

from __future__ import annotations

import tenacity

from airflow_stepops.errors import TransientServiceError

#: Wraps a call; what still fails after three minutes is raised.
patiently = tenacity.retry(
    retry=tenacity.retry_if_exception_type(TransientServiceError),
    wait=tenacity.wait_random_exponential(multiplier=0.5, max=20),
    stop=tenacity.stop_after_delay(180),
    reraise=True,
)
