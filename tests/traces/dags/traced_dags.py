"""Tasks whose spans are read: one that succeeds, and one whose first try fails after its run has started."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow_skyvern.compat.sdk import DAG, Param
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

PARAMS: dict[str, Any] = {name: Param("", type="string") for name in ("workflow_id", "vendor", "folder")}


def run(**more: Any) -> SkyvernRunWorkflowOperator:
    return SkyvernRunWorkflowOperator(
        task_id="run",
        workflow_id="{{ params.workflow_id }}",
        parameters={"vendor": "{{ params.vendor }}"},
        files_to="{{ params.folder }}",
        deferrable=True,
        poll_interval=2,
        **more,
    )


def fail_first_resumption(context: Any) -> None:
    ti = context["ti"]
    if ti.try_number == 1 and ti.xcom_pull(task_ids="run", key="run_id"):
        raise RuntimeError("this try fails, and the next one resumes its run")


with DAG("traced", schedule=None, params=PARAMS):
    run()

with DAG("traced_retry", schedule=None, params=PARAMS):
    run(retries=1, retry_delay=timedelta(seconds=1), pre_execute=fail_first_resumption)
