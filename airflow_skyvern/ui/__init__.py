"""The pages in Airflow's UI: the run of a task instance, the runs of a DAG run, the newest runs. Airflow 3.1+."""
