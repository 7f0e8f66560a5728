"""A DAG of each kind of wait, for runs that ask a person: each waits until the test lets its run continue."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow_skyvern.compat import since_3_1
from airflow_skyvern.compat.sdk import DAG, Param
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor

PARAMS: dict[str, Any] = {"workflow_id": Param("", type="string")}


def dag(dag_id: str) -> DAG:
    return DAG(f"upgrade_{dag_id}", schedule=None, params=PARAMS, max_active_runs=20)


def run(**kwargs: Any) -> SkyvernRunWorkflowOperator:
    given: dict[str, Any] = {"poll_interval": 3, "timeout": timedelta(minutes=20), **kwargs}
    return SkyvernRunWorkflowOperator(task_id="run", workflow_id="{{ params.workflow_id }}", **given)


with dag("waits"):
    run(deferrable=True)

with dag("logs_blocks"):
    run(deferrable=True, log_blocks=True)

with dag("senses"):
    started = run(wait_for_completion=False)
    SkyvernRunSensor(task_id="sensor", run_id=started.output, deferrable=True, poke_interval=3)

with dag("senses_without_worker"):
    started = run(wait_for_completion=False)
    SkyvernRunSensor(task_id="sensor", run_id=started.output, start_from_trigger=True, poke_interval=3)

if since_3_1.has_required_actions():
    with dag("asks"):
        run(deferrable=True, approval="airflow")
