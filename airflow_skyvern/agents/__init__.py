"""Skyvern as an agent that agents of Airflow's AI provider call: a browser as their tool."""
