"""The DAGs of the approval suite: a task that asks in Airflow, and one that does not wait for long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow_skyvern.compat.sdk import DAG, Param
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

PARAMS: dict[str, Any] = {"workflow_id": Param("", type="string")}

for dag_id, arguments in {"asks": {}, "asks_briefly": {"timeout": 60}, "skips": {"on_reject": "skip"}}.items():
    with DAG(dag_id, schedule=None, params=PARAMS, max_active_runs=50):
        SkyvernRunWorkflowOperator(
            task_id="run",
            workflow_id="{{ params.workflow_id }}",
            deferrable=True,
            poll_interval=3,
            approval="airflow",
            **{"timeout": timedelta(minutes=20), **arguments},
        )
