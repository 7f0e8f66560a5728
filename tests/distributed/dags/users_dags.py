"""DAGs that persons and webhooks reach through one API server or the other."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator

from airflow_skyvern.assets import skyvern_runs
from airflow_skyvern.compat.sdk import DAG, Param
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

PARAMS: dict[str, Any] = {"workflow_id": Param("", type="string")}

for dag_id, approval in {"asks": {"approval": "airflow"}, "waits": {}}.items():
    with DAG(dag_id, schedule=None, params=PARAMS):
        SkyvernRunWorkflowOperator(
            task_id="run",
            workflow_id="{{ params.workflow_id }}",
            deferrable=True,
            poll_interval=2,
            timeout=timedelta(minutes=20),
            **approval,
        )

with DAG("hooked", schedule=[skyvern_runs(os.environ["DISTRIBUTED_HOOKED"])], catchup=False):
    EmptyOperator(task_id="nothing")
