"""From a run to a test of the DAG that runs it: ``airflow-skyvern record``."""
