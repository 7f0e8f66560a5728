"""Runs whatever workflow the DAG run names."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_skyvern.operators import SkyvernRunWorkflowOperator


@dag(schedule=None, render_template_as_native_obj=True)
def invoices() -> None:
    SkyvernRunWorkflowOperator(
        task_id="fetch_invoices",
        workflow_id="{{ dag_run.conf['workflow_id'] }}",
        parameters="{{ dag_run.conf.get('parameters', {}) }}",
        deferrable=True,
        poll_interval=5,
    )


invoices()
