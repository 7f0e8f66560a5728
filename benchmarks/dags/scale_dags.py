"""A hundred deferred tasks at once; how each of their runs ends comes with the DAG run."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG("scale", schedule=None, params={"workflows": Param([], type="array")}, max_active_tasks=1000):

    @task
    def workflows(params: dict[str, Any]) -> list[str]:
        """Return the workflow of each task."""
        return params["workflows"]

    SkyvernRunWorkflowOperator.partial(task_id="run", deferrable=True, poll_interval=5, timeout=3600).expand(
        workflow_id=workflows()
    )
