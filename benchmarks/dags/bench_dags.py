"""The DAGs of ``make bench RIG=airflow``."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

PARAMS: dict[str, Any] = {"workflow_id": Param("", type="string"), "numbers": Param([], type="array")}


@task
def numbers(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what to map over."""
    return [{"number": number} for number in params["numbers"]]


@task
def nothing(given: dict[str, Any]) -> None:
    """Do nothing: what remains is what Airflow itself takes for one visit to a worker."""


with DAG("bench_runs", schedule=None, params=PARAMS):
    SkyvernRunWorkflowOperator.partial(
        task_id="run", workflow_id="{{ params.workflow_id }}", deferrable=True, poll_interval=5
    ).expand(parameters=numbers())

with DAG("bench_nothing", schedule=None, params=PARAMS):
    nothing.expand(given=numbers())
