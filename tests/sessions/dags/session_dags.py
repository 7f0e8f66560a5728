"""DAGs whose browser session has to be closed, however they end; the tasks between start no run."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from airflow_skyvern.compat.sdk import DAG, Param, task
from airflow_skyvern.operators import SkyvernOpenBrowserSessionOperator, skyvern_browser_session

PARAMS: dict[str, Any] = {"seconds": Param(1, type="integer"), "fails": Param(False, type="boolean")}


class FailsAfterOpening(SkyvernOpenBrowserSessionOperator):
    """Fails at the moment at which Airflow has to store what was opened."""

    def _keep(self, *_: Any) -> None:
        raise RuntimeError("Airflow's API server is away")


def dag(dag_id: str, **kwargs: Any) -> DAG:
    return DAG(dag_id, schedule=None, params=PARAMS, max_active_runs=20, **kwargs)


@task
def work(session: str, params: dict[str, Any] | None = None) -> None:
    assert params is not None
    time.sleep(params["seconds"])
    if params["fails"]:
        raise ValueError(f"the work in {session} fails")


@task
def more(session: str) -> None:
    time.sleep(1)


for name, options in {"ends": {}, "times_out": {"dagrun_timeout": timedelta(seconds=60)}}.items():
    with dag(name, **options), skyvern_browser_session(timeout=timedelta(minutes=10)) as opened:
        work(opened) >> more(opened)

with dag("open_fails"):
    FailsAfterOpening(task_id="open", retries=0)
