"""Commands around the product: a local Airflow, the demo, the benchmark runner."""
