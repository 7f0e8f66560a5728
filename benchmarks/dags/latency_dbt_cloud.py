"""DAGs of ``make bench RIG=latency``: runs of a dbt Cloud job, each followed by a next task."""

from __future__ import annotations

from functools import partial

from airflow.providers.dbt.cloud.operators.dbt import DbtCloudRunJobOperator
from latency_pairs import make_dags

make_dags("dbt-cloud", partial(DbtCloudRunJobOperator, job_id=4), "check_interval", "dbt_cloud_conn_id")
