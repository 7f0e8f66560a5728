"""
The DAGs of a team, which the folder of its bundle names: ``team_a`` or ``team_b``.

Both use the connections of team a: ``skyvern_a`` and ``skyvern_in_environment``.
"""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from airflow_skyvern.assets import runs_in, skyvern_runs
from airflow_skyvern.compat.sdk import DAG, Param, task
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor

TEAM = Path(__file__).parent.name.removeprefix("team_")
PARAMS: dict[str, Any] = {"workflow_id": Param("", type="string"), "run_id": Param("", type="string")}
HOOKED, WATCHED, REDELIVERED = (os.environ[f"TEAMS_{name}"] for name in ("HOOKED", "WATCHED", "REDELIVERED"))
RECEIVER = os.environ["TEAMS_RECEIVER"]
WAYS: dict[str, dict[str, Any]] = {
    "hooked": {"workflow_id": HOOKED},
    "hooked_in_environment": {"workflow_id": HOOKED, "skyvern_conn_id": "skyvern_in_environment"},
    "watched": {"workflow_id": WATCHED, "watch": True, "poll_interval": 2},
    "redelivered": {"workflow_id": REDELIVERED, "watch": True, "poll_interval": 2, "redeliver_to": RECEIVER},
}


class DiesWaiting(SkyvernRunWorkflowOperator):
    """Its process is killed once its run has started: Airflow schedules a retry, and the run continues."""

    def _wait(self, *_: Any, **__: Any) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@task
def note(triggering_asset_events: Any = None) -> list[str]:
    return [run["run_id"] for run in runs_in(triggering_asset_events)]


for way, options in WAYS.items():
    with DAG(f"{TEAM}_{way}", schedule=[skyvern_runs(**{"skyvern_conn_id": "skyvern_a", **options})], catchup=False):
        note()

for name, conn_id in (("waits", "skyvern_a"), ("waits_in_environment", "skyvern_in_environment")):
    with DAG(f"{TEAM}_{name}", schedule=None, params=PARAMS, max_active_runs=20):
        SkyvernRunWorkflowOperator(
            task_id="run",
            workflow_id="{{ params.workflow_id }}",
            skyvern_conn_id=conn_id,
            deferrable=True,
            poll_interval=3,
        )

with DAG(f"{TEAM}_times_out", schedule=None, params=PARAMS, dagrun_timeout=timedelta(seconds=120)):
    DiesWaiting(
        task_id="run",
        workflow_id="{{ params.workflow_id }}",
        skyvern_conn_id="skyvern_a",
        retries=1,
        retry_delay=timedelta(hours=1),
    )

with DAG(f"{TEAM}_senses", schedule=None, params=PARAMS):
    SkyvernRunSensor(
        task_id="run",
        run_id="{{ params.run_id }}",
        skyvern_conn_id="skyvern_a",
        deferrable=True,
        start_from_trigger=True,
        poke_interval=3,
    )
