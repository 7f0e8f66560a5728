"""A workflow file, run in each way."""

from __future__ import annotations

from datetime import timedelta

from airflow_skyvern.compat.sdk import DAG, task
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

TASKS = 20

with DAG(
    "workflow_file",
    schedule=None,
    max_active_tasks=TASKS,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},  # as in system_dags
):
    for way, deferrable in {"deferred": True, "worker": False}.items():
        SkyvernRunWorkflowOperator(
            task_id=way,
            workflow_file="waits.yaml",
            parameters={"note": "{{ dag_run.run_id }}"},
            poll_interval=3,
            deferrable=deferrable,
        )

    SkyvernRunWorkflowOperator.partial(
        task_id="mapped", workflow_file="waits.yaml", poll_interval=3, deferrable=True
    ).expand(parameters=[{"note": str(number)} for number in range(TASKS)])

    @task.skyvern(workflow_file="waits.yaml", poll_interval=3)
    def decorated() -> dict[str, str]:
        return {"note": "from a function"}

    decorated()
