"""DAGs that are started by finished Skyvern runs; the environment names the workflows, which are made before."""

from __future__ import annotations

import os
from typing import Any

from airflow_skyvern.assets import runs_in, skyvern_runs
from airflow_skyvern.compat.sdk import DAG, task
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.compat.since_3_3 import renders_trigger_arguments

WATCHED, HOOKED, EACH, BOTH = (os.environ[f"EVENTS_{name}"] for name in ("WATCHED", "HOOKED", "EACH", "BOTH"))
RECEIVER = os.environ["EVENTS_RECEIVER"]


@task
def note(triggering_asset_events: Any = None) -> list[str]:
    return [run["run_id"] for run in runs_in(triggering_asset_events)]


if is_airflow_3():
    both = skyvern_runs(BOTH, watch=True, poll_interval=2, redeliver_to=RECEIVER)
    for dag_id, asset in (
        ("watched", skyvern_runs(WATCHED, watch=True, poll_interval=2)),
        ("watched_failures", skyvern_runs(WATCHED, statuses="failed", watch=True, poll_interval=2)),
        ("hooked", skyvern_runs(HOOKED)),
        ("both", both),
    ):
        with DAG(dag_id, schedule=[asset], catchup=False):
            note()

if renders_trigger_arguments():  # Airflow 3.3
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import PartitionedAssetTimetable

    for dag_id, asset in (("hooked_each", skyvern_runs(EACH)), ("both_each", both)):
        with DAG(dag_id, schedule=PartitionedAssetTimetable(assets=asset), catchup=False, max_active_runs=100):
            EmptyOperator(task_id="nothing")
