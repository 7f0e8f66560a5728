"""Skyvern's own schedules: their endpoints, and how Airflow takes them over."""
