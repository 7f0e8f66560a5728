"""Run whatever workflow the DAG run names; one of them asks a person in Airflow, another one for a code."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag

from airflow_skyvern.operators import SkyvernRunWorkflowOperator


def run_workflow(task_id: str, **arguments: Any) -> None:
    SkyvernRunWorkflowOperator(
        task_id=task_id,
        skyvern_conn_id="{{ dag_run.conf.get('skyvern_conn_id', 'skyvern_default') }}",
        workflow_id="{{ dag_run.conf['workflow_id'] }}",
        parameters="{{ dag_run.conf.get('parameters', {}) }}",
        deferrable=True,
        poll_interval=5,
        **arguments,
    )


@dag(schedule=None, render_template_as_native_obj=True)
def invoices() -> None:
    run_workflow("fetch_invoices")


@dag(schedule=None, render_template_as_native_obj=True)
def payments() -> None:
    run_workflow("pay", approval="airflow")


@dag(schedule=None, render_template_as_native_obj=True)
def logins() -> None:
    run_workflow("log_in", code="airflow")


invoices()
payments()
logins()
