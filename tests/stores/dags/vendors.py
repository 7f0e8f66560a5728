"""A statement from each of twenty vendors: the files in a bucket, their rows in a table; and one very large file."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, BaseHook, Param, task
from pydantic import BaseModel

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

COLUMNS = ["vendor", "number", "item", "price"]
TABLE = """CREATE TABLE IF NOT EXISTS statements
    (vendor text, number integer, item text, price double precision, PRIMARY KEY (vendor, number))"""
RETRIES: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(seconds=2)}


class Row(BaseModel):
    """What a statement's rows have to look like."""

    item: str
    price: float


with DAG("twenty_vendors", schedule=None) as vendors_dag:
    vendors_dag.params.update(workflow_id=Param("", type="string"), vendors=Param([], type="array"))

    @task
    def runs(params: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"parameters": {"vendor": name, "size": "300KB"}, "file_name": f"{name}{{extension}}"}
            for name in params["vendors"]
        ]

    fetch = SkyvernRunWorkflowOperator.partial(
        task_id="fetch",
        workflow_id="{{ params.workflow_id }}",
        files_to="s3://invoices/vendors",
        files_conn_id="s3",
        expect_files=1,
        output_from="rows",
        output_schema=list[Row],
        return_run=True,
        deferrable=True,
        poll_interval=1,
        **RETRIES,
    ).expand_kwargs(runs())

    @task
    def load(run: dict[str, Any]) -> int:
        vendor = run["parameters"]["vendor"]
        rows = [(vendor, number, row["item"], row["price"]) for number, row in enumerate(run["output"])]
        hook = BaseHook.get_connection("warehouse").get_hook()
        hook.insert_rows("statements", rows, COLUMNS, replace=True, replace_index=COLUMNS[:2])
        return len(rows)

    @task
    def summary(counts: list[int]) -> dict[str, int]:
        return {"vendors": len(counts), "rows": sum(counts)}

    @task
    def create_table() -> None:
        BaseHook.get_connection("warehouse").get_hook().run(TABLE)

    loaded = load.expand(run=fetch.output)
    create_table() >> loaded
    summary(loaded)

with DAG("large_file", schedule=None) as large_dag:
    large_dag.params.update(workflow_id=Param("", type="string"))
    SkyvernRunWorkflowOperator(
        task_id="fetch",
        workflow_id="{{ params.workflow_id }}",
        parameters={"vendor": "Killed", "size": "200MB"},
        files_to="s3://invoices/killed-worker",
        files_conn_id="s3",
        file_name="statement{extension}",
        deferrable=True,
        poll_interval=1,
        **RETRIES,
    )
