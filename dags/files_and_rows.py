"""A file and some rows from each of twenty vendors: the files in one folder, all rows in one table, one summary."""

from __future__ import annotations

import csv
from typing import Any

from airflow.sdk import DAG, ObjectStoragePath, Param, task
from pydantic import BaseModel  # noqa: TID253  a DAG with a model needs it

from airflow_skyvern.operators import SkyvernRunWorkflowOperator


class Row(BaseModel):
    """A row that does not look like this fails the task of its vendor."""

    item: str
    price: float


with DAG("skyvern_files_and_rows", schedule=None, tags=["skyvern", "example"], doc_md=__doc__) as dag:
    dag.params["workflow_id"] = Param("wpid_123", type="string")
    dag.params["vendors"] = Param([f"Vendor {number}" for number in range(1, 21)], type="array")
    dag.params["folder"] = Param("/tmp/statements", type="string")  # noqa: S108  an example; could be s3://bucket/x

    @task
    def vendors(params: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what is different for each run: its parameters, and the name of its file."""
        return [{"parameters": {"vendor": name}, "file_name": f"{name}{{extension}}"} for name in params["vendors"]]

    fetch = SkyvernRunWorkflowOperator.partial(
        task_id="fetch",
        workflow_id="{{ params.workflow_id }}",
        files_to="{{ params.folder }}",
        expect_files=1,
        output_from="rows",
        output_schema=list[Row],
        return_run=True,
        deferrable=True,
    ).expand_kwargs(vendors())

    @task
    def summary(runs: list[dict[str, Any]], params: dict[str, Any]) -> dict[str, Any]:
        """Write one table with the rows of all vendors beside their files."""
        rows = [(run["parameters"]["vendor"], row["item"], row["price"]) for run in runs for row in run["output"]]
        with ObjectStoragePath(f"{params['folder']}/rows.csv").open("w", newline="") as table:
            csv.writer(table).writerows([("vendor", "item", "price"), *rows])
        files = [file["path"] for run in runs for file in run["files"]]
        return {"files": len(files), "rows": len(rows), "total": sum(row[2] for row in rows)}

    summary(fetch.output)
