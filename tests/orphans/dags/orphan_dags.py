"""DAGs that end where no code of the provider runs, and DAGs beside them that must not notice."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from airflow_skyvern.compat.sdk import DAG, Param
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor

PARAMS: dict[str, Any] = {"workflow_id": Param("", type="string")}


class DiesWaiting(SkyvernRunWorkflowOperator):
    """Its process is killed once its run has started: Airflow schedules a retry, and the run continues."""

    def _wait(self, *_: Any, **__: Any) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def dag(dag_id: str, **kwargs: Any) -> DAG:
    return DAG(dag_id, schedule=None, params=PARAMS, max_active_runs=20, **kwargs)


def run(kind: type[SkyvernRunWorkflowOperator] = SkyvernRunWorkflowOperator, **kwargs: Any) -> Any:
    return kind(task_id="run", workflow_id="{{ params.workflow_id }}", poll_interval=3, **kwargs)


with dag("timed_out_between_tries", dagrun_timeout=timedelta(seconds=45)):
    run(DiesWaiting, retries=1, retry_delay=timedelta(minutes=30))

with dag("deleted"):
    run(deferrable=True, cancel_on_kill=True)

with dag("healthy"):
    run(deferrable=True)

with dag("fire_and_forget"):
    run(wait_for_completion=False)

if Path(__file__).with_name("with_the_removed_dag").exists():
    with dag("file_removed"):
        run(DiesWaiting, retries=1, retry_delay=timedelta(seconds=40))

with dag("ends_in_the_triggerer"):
    start = run(wait_for_completion=False)
    SkyvernRunSensor(
        task_id="wait",
        run_id=start.output,
        deferrable=True,
        start_from_trigger=True,
        end_from_trigger=True,
        poke_interval=3,
    )
