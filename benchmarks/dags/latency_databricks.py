"""DAGs of ``make bench RIG=latency``: runs of a Databricks notebook, each followed by a next task."""

from __future__ import annotations

from functools import partial

from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from latency_pairs import make_dags

job = partial(
    DatabricksSubmitRunOperator,
    existing_cluster_id="1122-202447-abcdefgh",
    notebook_task={"notebook_path": "/Users/a@example.com/notebook"},
)
make_dags("databricks", job, "polling_period_seconds", "databricks_conn_id")
