"""Send a file, check the rows that come back against a model, and load them into a SQL table."""

from __future__ import annotations

from typing import Any

from airflow.hooks.base import BaseHook  # airflow.sdk has it from 3.1 on
from airflow.sdk import DAG, task
from pydantic import BaseModel  # noqa: TID253  a DAG with a model needs it

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

COLUMNS = ["run_id", "number", "item", "price"]
TABLE = """CREATE TABLE IF NOT EXISTS skyvern_rows
    (run_id text, number integer, item text, price double precision, PRIMARY KEY (run_id, number))"""


class Row(BaseModel):
    """A row that does not look like this fails the task, and nothing is loaded."""

    item: str
    price: float


with DAG("skyvern_rows_to_sql", schedule=None, tags=["skyvern", "example"], doc_md=__doc__) as dag:
    dag.params.update(workflow_id="wpid_123", statement="s3://statements/2026-10.csv")
    rows = SkyvernRunWorkflowOperator(
        task_id="rows",
        workflow_id="{{ params.workflow_id }}",
        upload={"statement": "{{ params.statement }}"},
        output_from="rows",
        output_schema=list[Row],
        deferrable=True,
    )

    @task
    def load(rows: list[dict[str, Any]], skyvern_run: str) -> int:
        """Load the rows; their key is the run and the number of the row, so doing it again changes nothing."""
        values = [(skyvern_run, number, row["item"], row["price"]) for number, row in enumerate(rows)]
        hook = BaseHook.get_connection("warehouse").get_hook()
        hook.run(TABLE)
        hook.insert_rows("skyvern_rows", values, COLUMNS, replace=True, replace_index=COLUMNS[:2])
        return len(values)

    load(rows.output, rows.output["run_id"])
