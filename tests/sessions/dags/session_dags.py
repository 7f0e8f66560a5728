"""DAGs whose browser session has to be closed, however they end."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from airflow_skyvern.compat.sdk import DAG, Param, get_current_context, task
from airflow_skyvern.operators import (
    SkyvernOpenBrowserSessionOperator,
    SkyvernRunWorkflowOperator,
    skyvern_browser_session,
)

PARAMS: dict[str, Any] = {"workflow_id": Param("", type="string"), "then": Param("", type="string")}


class FailsAfterOpening(SkyvernOpenBrowserSessionOperator):
    """Fails at the moment at which Airflow has to store what was opened."""

    def _keep(self, *_: Any) -> None:
        raise RuntimeError("Airflow's API server is away")


def dag(dag_id: str, **kwargs: Any) -> DAG:
    return DAG(dag_id, schedule=None, params=PARAMS, max_active_runs=20, **kwargs)


def work(session: Any, task_id: str = "work", *, param: str = "workflow_id", **options: Any) -> Any:
    workflow = f"{{{{ params.{param} }}}}"
    return SkyvernRunWorkflowOperator(
        task_id=task_id, workflow_id=workflow, browser_session_id=session, poll_interval=2, **options
    )


@task(retries=1, retry_delay=timedelta(seconds=1))
def is_killed_once() -> None:
    """End as on a machine that loses its power, the first time."""
    if get_current_context()["ti"].try_number == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def session(**options: Any) -> Any:
    return skyvern_browser_session(timeout=timedelta(hours=2), **options)


for name, limit in {"ends": None, "times_out": timedelta(seconds=90)}.items():
    with dag(name, dagrun_timeout=limit), session() as opened:
        work(opened) >> work(opened, "more", param="then", deferrable=True)

with dag("open_fails"):
    FailsAfterOpening(task_id="open", retries=0)

with dag("killed"), session() as opened:
    more = work(opened, "more", param="then", deferrable=True, retries=2, retry_delay=timedelta(seconds=1))
    work(opened, retries=2, retry_delay=timedelta(seconds=1)) >> is_killed_once() >> more
