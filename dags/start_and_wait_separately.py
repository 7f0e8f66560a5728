"""Start a run in one task and wait for it in another, with other work in between."""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor

with DAG(
    "skyvern_start_and_wait_separately",
    schedule=None,
    params={"workflow_id": Param("wpid_123", type="string")},
    tags=["skyvern", "example"],
    doc_md=__doc__,
):
    start = SkyvernRunWorkflowOperator(
        task_id="start", workflow_id="{{ params.workflow_id }}", wait_for_completion=False
    )
    wait = SkyvernRunSensor(task_id="wait", run_id=start.output, deferrable=True, timeout=3600)

    @task
    def work_meanwhile() -> str:
        """Do something else while the browser works."""
        return "done"

    start >> work_meanwhile()
