"""Apache Airflow provider for Skyvern, the service that runs AI browser automations."""

__version__ = "0.1.0"
