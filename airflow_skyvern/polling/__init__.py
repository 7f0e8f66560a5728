"""Polls a thousand waits with ten requests. Does not depend on Airflow."""
