"""Speaks HTTP to Skyvern: settings, the two senders, and every endpoint as a value. Does not depend on Airflow."""
