"""A thousand waits for the price of ten requests. Knows nothing of Airflow."""
