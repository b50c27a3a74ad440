"""``python -m airflow_stepops.cli``: the same as ``stepops``."""

from airflow_stepops.cli.main import main

main()
