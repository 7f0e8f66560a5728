"""DAGs of ``make bench RIG=latency``: runs of a Skyvern workflow, each followed by a next task."""

from __future__ import annotations

from functools import partial

from latency_pairs import make_dags

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

job = partial(SkyvernRunWorkflowOperator, workflow_id="wpid_600000000000000001")
make_dags("skyvern", job, "poll_interval", "skyvern_conn_id")
