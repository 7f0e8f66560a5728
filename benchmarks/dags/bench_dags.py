"""The DAGs of ``make bench RIG=airflow``."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator


@task
def workflows(params: dict[str, Any]) -> list[str]:
    """Return the workflow of each task: how its run ends."""
    return list(params["workflows"])


@task
def numbers(params: dict[str, Any]) -> list[int]:
    """Return what to map the empty tasks over."""
    return list(params["numbers"])


@task
def empty(number: int) -> None:
    """Do nothing: what remains is what Airflow itself needs for one visit to a worker."""


with DAG("bench_runs", schedule=None, params={"workflows": Param([], type="array")}):
    SkyvernRunWorkflowOperator.partial(task_id="run", deferrable=True, poll_interval=5, timeout=3600).expand(
        workflow_id=workflows()
    )

with DAG("bench_empty", schedule=None, params={"numbers": Param([], type="array")}):
    empty.expand(number=numbers())
