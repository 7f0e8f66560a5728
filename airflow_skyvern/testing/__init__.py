"""Tests of DAGs without a Skyvern: ``pytest_plugins = ["airflow_skyvern.testing"]``."""
