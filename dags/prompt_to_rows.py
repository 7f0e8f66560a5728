"""A prompt instead of a workflow: what to do in a browser, in words, and what the data has to look like."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task
from pydantic import BaseModel  # noqa: TID253  a DAG with a model needs it

from airflow_skyvern.operators import SkyvernRunPromptOperator


class Invoice(BaseModel):
    """The model of the browser is asked for this, and data that does not look like it fails the task."""

    invoice: str
    customer: str
    amount: float


with DAG(
    "skyvern_prompt_to_rows",
    schedule=None,
    params={"url": Param("https://portal.example.com/invoices", type="string")},
    tags=["skyvern", "example"],
    doc_md=__doc__,
):
    invoices = SkyvernRunPromptOperator(
        task_id="invoices",
        prompt="Read all invoices that are open.",
        url="{{ params.url }}",
        output_schema=list[Invoice],
        max_steps=10,
        deferrable=True,
    )

    @task
    def total(invoices: list[dict[str, Any]]) -> float:
        """Work with the rows; load them into a table as rows_to_sql.py does."""
        return round(sum(invoice["amount"] for invoice in invoices), 2)

    total(invoices.output)
