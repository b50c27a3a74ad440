"""Links that Airflow shows on a step's task."""
