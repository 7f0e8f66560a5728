"""Prompts: deferred and on the worker, as a function, with a download, and twenty of one shape."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from pydantic import BaseModel

from airflow_skyvern.operators import SkyvernRunPromptOperator

TOTAL = {"type": "object", "properties": {"total_open": {"type": "number"}}, "required": ["total_open"]}
TIMES = 20


class Invoice(BaseModel):
    invoice: str
    customer: str
    amount: float


with DAG(
    "prompts",
    schedule=None,
    max_active_tasks=2,  # a browser each, and they are heavy
    default_args={"retries": 1, "retry_delay": timedelta(seconds=1), "poll_interval": 3},
):
    given: dict[str, Any] = {"url": "{{ dag_run.conf['url'] }}", "max_steps": 5}
    one = SkyvernRunPromptOperator(
        task_id="deferred",
        prompt="Read all invoices.",
        output_schema=list[Invoice],
        deferrable=True,
        **given,
    )
    two = SkyvernRunPromptOperator(
        task_id="worker", prompt="Read all invoices.", output_schema=list[Invoice], deferrable=False, **given
    )
    three = SkyvernRunPromptOperator(
        task_id="download",
        prompt="Download the invoice {invoice}.",
        parameters={"invoice": "INV-1003"},
        files_to="{{ dag_run.conf['folder'] }}",
        deferrable=True,
        **given,
    )

    @task.skyvern(prompt="Read the total that is open, for {who}.", output_schema=TOTAL, return_run=True, **given)
    def decorated() -> dict[str, str]:
        return {"who": "a function"}

    mapped = SkyvernRunPromptOperator.partial(
        task_id="mapped",
        prompt="Read the total that is open, {number}.",
        output_schema=TOTAL,
        deferrable=False,
        **given,
    ).expand(parameters=[{"number": number} for number in range(TIMES)])

    one >> two >> three >> decorated() >> mapped
