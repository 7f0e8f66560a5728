"""Start when runs of a workflow have finished, whatever started them, and handle each. Needs Airflow 3."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_skyvern.assets import FinishedRun, runs_in, skyvern_runs

with DAG(
    "skyvern_watch_finished_runs",
    schedule=[skyvern_runs("wpid_123", watch=True)],
    catchup=False,
    tags=["skyvern", "example"],
    doc_md=__doc__,
):

    @task
    def finished(triggering_asset_events: Any = None) -> list[FinishedRun]:
        """Return the runs that this DAG run was started for; there may be several."""
        return runs_in(triggering_asset_events)

    @task
    def handle(run: FinishedRun) -> str:
        """Handle one run. It may be repeated after a crash of the triggerer: key what you store by its id."""
        return f"{run['run_id']} {run['status']}: {run['app_url']}"

    handle.expand(run=finished())
