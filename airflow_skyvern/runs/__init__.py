"""One run's life: start it exactly once, wait for it, cancel it. Knows nothing of Airflow."""
