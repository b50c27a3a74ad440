"""Airflow connections of this package."""
