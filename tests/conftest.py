"""Loads what all tests share. Airflow's environment is set here, before anything imports Airflow."""

pytest_plugins = ["tests.airflow_env"]
