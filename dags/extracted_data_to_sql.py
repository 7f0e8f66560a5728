"""Put what a run extracted into a SQL table, once per run of the DAG."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG(
    "skyvern_extracted_data_to_sql",
    schedule=None,
    params={
        "workflow_id": Param("wpid_123", type="string"),
        "database": Param("/tmp/skyvern_example.db", type="string"),  # noqa: S108  only an example
    },
    tags=["skyvern", "example"],
    doc_md=__doc__,
):
    extract = SkyvernRunWorkflowOperator(task_id="extract", workflow_id="{{ params.workflow_id }}", deferrable=True)

    @task
    def load(output: dict[str, Any], skyvern_run: str, params: dict[str, Any]) -> int:
        """Store one row per block. The key is the Skyvern run: loading it again changes nothing."""
        rows = [(skyvern_run, block, json.dumps(value)) for block, value in output.items()]
        with closing(sqlite3.connect(params["database"])) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS extracted (run_id, block, value, PRIMARY KEY (run_id, block))")
            db.executemany("INSERT OR REPLACE INTO extracted VALUES (?, ?, ?)", rows)
        return len(rows)

    load(extract.output, extract.output["run_id"])
