"""A DAG that syncs the credentials of some connections, and one that names a credential."""

from __future__ import annotations

from airflow_skyvern.compat.sdk import DAG, Param
from airflow_skyvern.operators import SkyvernRunWorkflowOperator, SkyvernSyncCredentialsOperator

with DAG("syncs", schedule=None, params={"connections": Param([], type="array")}):
    SkyvernSyncCredentialsOperator(
        task_id="sync", connections="{{ params.connections | tojson }}", delete=True, scope="nightly"
    )

with DAG("logs_in", schedule=None, params={"workflow_id": Param("", type="string")}):
    SkyvernRunWorkflowOperator(
        task_id="run",
        workflow_id="{{ params.workflow_id }}",
        parameters={"login": "portal"},
        deferrable=True,
        poll_interval=2,
    )
