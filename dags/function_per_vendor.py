"""@task.skyvern: a function returns the parameters of a run, here one run per vendor."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

with DAG(
    "skyvern_function_per_vendor",
    schedule=None,
    params={"workflow_id": Param("wpid_123", type="string")},
    tags=["skyvern", "example"],
    doc_md=__doc__,
):

    @task.skyvern(workflow_id="{{ params.workflow_id }}", deferrable=True, return_run=True)
    def invoices(vendor: str, month: str) -> dict[str, Any]:
        """Compute the parameters on the worker; the value of the task is that of the run."""
        return {"vendor": vendor, "month": month}

    @task
    def book(run: dict[str, Any]) -> str:
        """Handle one run: which vendor it was for is among its parameters."""
        return f"{run['parameters']['vendor']}: {run['run_id']} returned {sorted(run['output'])}"

    book.expand(run=invoices.partial(month="2026-10").expand(vendor=["ACME", "Globex", "Initech"]))
