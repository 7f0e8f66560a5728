"""One run per item of a list that is only known at run time, with a pool as the limit."""

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

    # A pool made with --include-deferred limits the runs in Skyvern, not only the workers:
    #   airflow pools set --include-deferred skyvern 5 "Skyvern runs at a time"
    SkyvernRunWorkflowOperator.partial(
        task_id="fetch", workflow_id="{{ params.workflow_id }}", pool="default_pool", deferrable=True
    ).expand(parameters=vendors())
