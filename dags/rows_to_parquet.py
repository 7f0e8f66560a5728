"""Write the rows that a run has extracted into a Parquet file in object storage."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, ObjectStoragePath, Param, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG(
    "skyvern_rows_to_parquet",
    schedule=None,
    params={
        "workflow_id": Param("wpid_123", type="string"),
        "folder": Param("s3://aws_default@warehouse/rows", type="string"),  # with the connection's id
    },
    tags=["skyvern", "example"],
    doc_md=__doc__,
):
    rows = SkyvernRunWorkflowOperator(
        task_id="rows", workflow_id="{{ params.workflow_id }}", output_from="rows", deferrable=True
    )

    @task
    def write(rows: list[dict[str, Any]], skyvern_run: str, params: dict[str, Any]) -> str:
        """Write one file per run; the task needs pyarrow."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = ObjectStoragePath(params["folder"]) / f"{skyvern_run}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as sink:
            pq.write_table(pa.Table.from_pylist(rows), sink)
        return str(file)

    write(rows.output, rows.output["run_id"])
