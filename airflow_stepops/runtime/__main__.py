"""What every job runs: ``python -m airflow_stepops.runtime``, with the URI of its spec in ``STEPOPS_SPEC``."""

import os
import sys

# The code layer is in front of the path. The standard library and the requirements come first, as in a DAG file, so it
# goes to the end, before anything is imported that a file such as calendar.py or random.py would stand in for.
sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())] + [os.getcwd()]  # noqa: PTH109

from airflow_stepops.runtime.job import main  # noqa: E402

sys.exit(main())
