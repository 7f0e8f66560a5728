"""The workflow is a file beside the DAG: reviewed, versioned and rolled back with it."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG(
    "skyvern_workflow_in_git",
    schedule=None,
    params={
        "month": Param("2026-10", type="string"),
        "portal": Param("https://portal.example.com/invoices", type="string"),
    },
    tags=["skyvern", "example"],
    doc_md=__doc__,
):
    invoices = SkyvernRunWorkflowOperator(
        task_id="invoices",
        workflow_file="open_invoices.yaml",
        parameters={"month": "{{ params.month }}", "portal": "{{ params.portal }}"},
        output_from="read_invoices",
        deferrable=True,
    )

    @task
    def total(invoices: list[dict[str, Any]]) -> float:
        """Work with the rows."""
        return round(sum(invoice["amount"] for invoice in invoices), 2)

    total(invoices.output)
