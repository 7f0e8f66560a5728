"""One run's life: start it exactly once, wait for it, cancel it. Does not depend on Airflow."""
