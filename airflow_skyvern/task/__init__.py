"""This try of this task: Airflow's side of a run, and the code that operators and sensors share."""
