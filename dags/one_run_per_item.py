"""One run per item of a list that is only known at run time, limited by a pool, and one task per finished run."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG(
    "skyvern_one_run_per_item",
    schedule=None,
    params={
        "workflow_id": Param("wpid_123", type="string"),
        "vendors": Param(["ACME", "Globex", "Initech"], type="array"),
    },
    tags=["skyvern", "example"],
    doc_md=__doc__,
):

    @task
    def vendors(params: dict[str, Any]) -> list[dict[str, str]]:
        """Return the parameters of each run."""
        return [{"vendor": vendor, "month": "2026-10"} for vendor in params["vendors"]]

    # The pool has to exist; it counts deferred tasks, so it limits the runs in Skyvern and not only the workers:
    #   airflow pools set --include-deferred skyvern 5 "Skyvern runs at a time"
    fetch = SkyvernRunWorkflowOperator.partial(
        task_id="fetch",
        workflow_id="{{ params.workflow_id }}",
        pool="skyvern",
        deferrable=True,
        return_run=True,
    ).expand(parameters=vendors())

    @task
    def book(run: dict[str, Any]) -> str:
        """Handle one run: which vendor it was for is among its parameters."""
        return f"{run['parameters']['vendor']}: {run['run_id']} returned {sorted(run['output'])}"

    book.expand(run=fetch.output)
