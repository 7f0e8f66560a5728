"""Act on a failed run in another task: read why it failed."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG(
    "skyvern_handle_a_failed_run",
    schedule=None,
    params={"workflow_id": Param("wpid_123", type="string")},
    tags=["skyvern", "example"],
    doc_md=__doc__,
):
    attempt = SkyvernRunWorkflowOperator(task_id="attempt", workflow_id="{{ params.workflow_id }}", deferrable=True)

    @task(trigger_rule="one_failed")
    def explain(ti: Any) -> dict[str, Any]:
        """Fetch the run again: its id was pushed before it failed."""
        run = SkyvernHook().get_run(ti.xcom_pull(task_ids="attempt", key="run_id"))
        return {
            "status": run.status,
            "reason": run.failure_reason,
            "codes": run.error_codes,
            "see": run.app_url,
        }

    attempt >> explain()
