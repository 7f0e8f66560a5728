"""Start one DAG run for each run that Skyvern reports by webhook. Below Airflow 3.3, one for several."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from airflow.sdk import DAG, task

from airflow_skyvern.assets import runs_in, skyvern_runs

completed = skyvern_runs("wpid_123", statuses="completed")
schedule: Any = [completed]
with suppress(ImportError):  # below Airflow 3.3
    from airflow.sdk import PartitionedAssetTimetable

    schedule = PartitionedAssetTimetable(assets=completed)

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
