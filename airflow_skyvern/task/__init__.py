"""This try of this task: what Airflow's side of a run needs, and what operators and sensors share."""
