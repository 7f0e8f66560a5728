"""Start one DAG run for each run that Skyvern reports by webhook. Below Airflow 3.3, one for several."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_3_PLUS

from airflow_skyvern.assets import runs_in, skyvern_runs

if AIRFLOW_V_3_0_PLUS:  # Airflow 2 has no webhooks: this file defines no DAG there
    completed: Any = skyvern_runs("wpid_123", statuses="completed")
    if AIRFLOW_V_3_3_PLUS:
        from airflow.sdk import PartitionedAssetTimetable

        schedule: Any = PartitionedAssetTimetable(assets=completed)
    else:
        schedule = [completed]

    with DAG(
        "skyvern_one_dag_run_per_webhook",
        schedule=schedule,
        catchup=False,
        tags=["skyvern", "example"],
        doc_md=__doc__,
    ):

        @task
        def handle(triggering_asset_events: Any = None) -> list[str]:
            """Return the ids of the runs: on Airflow 3.3 just one, which is also the partition key of the DAG run."""
            return [run["run_id"] for run in runs_in(triggering_asset_events)]

        handle()
