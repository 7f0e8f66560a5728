"""Logins are Airflow connections: Skyvern gets them each night, and a run names the one that it uses."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_skyvern.operators import SkyvernRunWorkflowOperator, SkyvernSyncCredentialsOperator

with DAG(
    "skyvern_log_in_by_name",
    schedule=None,
    tags=["skyvern", "example"],
    doc_md=__doc__,
):
    logins = SkyvernSyncCredentialsOperator(task_id="logins", connections=["portal"], delete=True)

    invoices = SkyvernRunWorkflowOperator(
        task_id="invoices",
        workflow_id="wpid_123",
        parameters={"login": "portal"},
        deferrable=True,
    )

    logins >> invoices
