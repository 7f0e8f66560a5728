"""What the DAG files of ``make bench RIG=latency`` share: jobs, each followed by a next task."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from airflow.sdk import DAG, BaseOperator, task

JOBS = int(os.environ["BENCH_JOBS"])
INTERVAL = int(os.environ["BENCH_INTERVAL"])
WORKERS = int(os.environ["AIRFLOW__CORE__PARALLELISM"])


def make_dags(name: str, job: Callable[..., BaseOperator], interval: str, connection: str) -> None:
    """
    Make a DAG with the default interval of a provider, and one with the interval that all providers get.

    The second one has a connection of its own: waits in Skyvern share their polls with others of their connection.

    :param job: Makes the task that runs a job.
    :param interval: The operator's argument for the interval.
    :param connection: The operator's argument for the connection.
    """
    _make_dag(f"{name}_default", job, {})
    _make_dag(f"{name}_same", job, {interval: INTERVAL, connection: f"{name.replace('-', '_')}_same"})


def _make_dag(dag_id: str, job: Callable[..., BaseOperator], options: dict[str, Any]) -> None:
    with DAG(dag_id, schedule=None):
        for number in range(JOBS):
            # The scheduler starts a job of each DAG in turn, so all of them compete for the processors alike.
            order = {"priority_weight": JOBS - number, "weight_rule": "absolute"}
            running = job(task_id=f"job_{number}", deferrable=True, **order, **options)
            running >> next_task.override(task_id=f"next_{number}")()


@task(priority_weight=1000, weight_rule="absolute")
def next_task() -> None:
    """Do nothing: only its start counts."""
