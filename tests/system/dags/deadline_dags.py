"""A DAG whose runs miss their deadline while their Skyvern run is active; Airflow 3.1 and newer."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any

from airflow_skyvern.compat.internals import module_exists
from airflow_skyvern.compat.sdk import DAG, Param
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.overdue import overdue_runs

PARAMS: dict[str, Any] = {"workflow_id": Param("", type="string")}

if module_exists("airflow.sdk.definitions.deadline"):
    deadline: Any = import_module("airflow.sdk.definitions.deadline")
    alert = deadline.DeadlineAlert(
        reference=deadline.DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=30),
        callback=deadline.AsyncCallback(overdue_runs, kwargs={"cancel": True}),
    )
    with DAG("overdue", schedule=None, params=PARAMS, deadline=alert):
        SkyvernRunWorkflowOperator(
            task_id="run", workflow_id="{{ params.workflow_id }}", poll_interval=3, deferrable=True
        )
