"""Run one step of an Airflow DAG on a managed ML service.

DAG files import from :mod:`airflow_stepops.dag`; code inside a step imports from here.
"""

__version__ = "0.1.0"
