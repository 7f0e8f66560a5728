"""The task of the fault suite, in both ways of waiting; what it runs and under which name comes with the DAG run."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow_skyvern.compat.sdk import DAG, Param
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

PARAMS: dict[str, Any] = {"x": Param("", type="string"), "workflows": Param([], type="array")}

WAYS = {"deferred": True, "worker": False}

for way, deferrable in WAYS.items():
    with DAG(f"faults_{way}", schedule=None, params=PARAMS, max_active_runs=200, max_active_tasks=200):
        SkyvernRunWorkflowOperator(
            task_id="run",
            # The first try's workflow, then the next ones': the last stands for all that follow.
            workflow_id="{{ (params.workflows[ti.try_number - 1:] or params.workflows[-1:])[0] }}",
            # By which the suite, not the operator, knows whose run it is.
            run_options={"run_metadata": {"x": "{{ params.x }}", "group": "{{ ti.max_tries }}"}},
            deferrable=deferrable,
            durable=os.environ.get("FAULTS_DURABLE", "1") == "1",
            lost_start_timeout=float(os.environ["FAULTS_LOST_START_TIMEOUT"]),
            timeout=float(os.environ["FAULTS_TIMEOUT"]),
            poll_interval=2,
            retries=4,
            retry_delay=timedelta(seconds=3),
        )
