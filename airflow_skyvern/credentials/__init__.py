"""Credentials of Skyvern that are known by their names, and those that are made from Airflow's connections."""
