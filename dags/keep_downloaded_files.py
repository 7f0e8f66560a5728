"""Keep the file that a run downloads, and a recording of how it got it, in a folder of the worker."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG(
    "skyvern_keep_downloaded_files",
    schedule=None,
    params={
        "workflow_id": Param("wpid_123", type="string"),
        "invoice": Param("INV-1003", type="string"),
        "folder": Param("/tmp/invoices", type="string"),  # noqa: S108  an example; could be s3://bucket/invoices
    },
    tags=["skyvern", "example"],
    doc_md=__doc__,
):
    # The workflow logs in, extracts the table of invoices (its block read_invoices), and downloads one as PDF.
    fetch = SkyvernRunWorkflowOperator(
        task_id="fetch",
        workflow_id="{{ params.workflow_id }}",
        parameters={"invoice": "{{ params.invoice }}"},
        output_from="read_invoices",
        files_to="{{ params.folder }}",
        file_name="{{ params.invoice }}{extension}",
        expect_files=["*.pdf"],
        recording=True,
        screenshots=True,
        log_blocks=True,
        deferrable=True,
    )

    @task
    def report(output: dict[str, Any], files: list[dict[str, Any]]) -> dict[str, Any]:
        """Use what was extracted, and where the file is; its size and sha256 are known too."""
        return {"open": output["total_open"], "pdf": files[0]["path"]}

    report(fetch.output, fetch.output["files"])
