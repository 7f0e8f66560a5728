"""The DAG that ``make bench RIG=latency`` runs first: every worker process imports Airflow with its first task."""

from __future__ import annotations

import time

from airflow.sdk import DAG, task
from latency_pairs import WORKERS


@task
def occupy(seconds: float) -> None:
    """Occupy a worker until the others have started, too."""
    time.sleep(seconds)


with DAG("warm_up", schedule=None):
    occupy.expand(seconds=[5.0] * (2 * WORKERS))
