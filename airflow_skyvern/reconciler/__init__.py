"""Runs that nobody waits for: found by comparing Skyvern's active runs with Airflow's task instances."""
