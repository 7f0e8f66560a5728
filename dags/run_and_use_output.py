"""Run a Skyvern workflow and use its output in the next task. Start here."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG(
    "skyvern_run_and_use_output",
    schedule=None,
    params={
        "workflow_id": Param("wpid_123", type="string"),
        "vendor": Param("ACME", type="string"),
        "month": Param("2026-10", type="string"),
    },
    tags=["skyvern", "example"],
    doc_md=__doc__,
):
    fetch = SkyvernRunWorkflowOperator(
        task_id="fetch",
        workflow_id="{{ params.workflow_id }}",
        parameters={"vendor": "{{ params.vendor }}", "month": "{{ params.month }}"},
        deferrable=True,
    )

    @task
    def report(output: dict[str, Any]) -> list[str]:
        """Every block of the workflow has its own entry in the output."""
        return sorted(output)

    report(fetch.output)
